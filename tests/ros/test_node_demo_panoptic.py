"""The panoptic demo model behind the node: things and stuff, as they come over DDS."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import pixels, segmenter, thing_sequences
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.evaluation.metrics.clear import clear
from videomt_ros.msg import Track

pytestmark = pytest.mark.ros
# Three shapes before sky, ground and a wall that the model tells apart: what is lost here is lost
# by the node. It is no measure of the model, for which see the card.
SCENE = Scene(700, height=192, width=240, num_frames=15, num_objects=3, stuff=True)
STUFF = ALL_NAMES[len(CLASS_NAMES) :]


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    """List for each frame the true ids and what the node published: tracks, ids and classes."""
    outputs = ('tracks', 'instances', 'semantic')
    with segmenter(tmp_path_factory.mktemp('demo'), 'demo_panoptic', *outputs) as peer:
        frames = []
        for image, true_ids in SCENE.frames():
            message, instances, semantic = peer.ask(image)
            assert message.model == 'demo_panoptic'
            frames.append((true_ids, message.tracks, pixels(instances), pixels(semantic)))
        return frames


def test_every_pixel_of_a_track_has_its_id_and_its_class(seen):
    for _, tracks, ids, labels in seen:
        in_view = {track.id: track for track in tracks if track.state != Track.LOST}
        assert set(np.unique(ids)) - {0} == set(in_view)
        assert ((ids == 0) == (labels == 255)).all()
        for track_id, track in in_view.items():
            assert (labels[ids == track_id] == track.class_id).all()
            assert track.class_name == ALL_NAMES[track.class_id]
            assert track.is_thing == (track.class_name in CLASS_NAMES)
            mask = coco_mask.decode({'size': [192, 240], 'counts': track.mask.counts.encode()})
            assert (mask == (ids == track_id)).all()


def test_things_are_found_and_keep_their_ids(seen):
    frames = [
        (true_ids, ids, {track.id: track.class_id for track in tracks if track.is_thing})
        for true_ids, tracks, ids, _ in seen
    ]
    scores = clear(thing_sequences(SCENE, frames))
    # All but those of the first frame, in which no track is confirmed yet. Only tracks of the
    # true class match.
    assert scores.num_matches + scores.num_missed == 45
    assert scores.num_matches > 0.9 * 45
    assert not scores.switches


def test_sky_ground_and_wall_are_one_lasting_region_each(seen):
    for name in STUFF:
        class_id = ALL_NAMES.index(name)
        (identity,) = (i for i, k in SCENE.class_of.items() if k == class_id)
        intersection = union = 0
        track_ids = set()
        for true_ids, tracks, _, labels in seen[2:]:
            true, found = true_ids == identity, labels == class_id
            intersection += np.count_nonzero(true & found)
            union += np.count_nonzero(true | found)
            (track,) = (track for track in tracks if track.class_id == class_id)
            track_ids.add(track.id)
        assert intersection / union > 0.8
        assert len(track_ids) == 1
