"""Quality of a model on synthetic scenes, as a live stream sees them: causal, with track ids."""

from __future__ import annotations

from collections.abc import Iterable

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.evaluation.tracking import TrackQuality, TrackScores
from videomt_ros.inference.stream import VideoStream
from videomt_ros.model import VidEoMT

FRAME_NS = 100_000_000
"""Between two stamps, as of a camera with 10 frames a second; counts for gaps in tracks."""


def measure_scenes(net: VidEoMT, seeds: Iterable[int], num_frames: int) -> TrackScores:
    """Run a stream over whole scenes, one after the other, and compare with their truth.

    The scenes have their default size, and the stream its default settings. Objects below
    VISIBLE_SHARE of the image (evaluation.tracking) are not scored.

    Args:
        net: trained on the classes of `videomt_ros.datasets.synthetic.scene`.
        seeds: of the scenes; those below FIRST_TRAINING_SEED (training.scene_clips) are never
            trained on.
        num_frames: length of each scene.

    Returns:
        Scores over all frames of all scenes.
    """
    quality = TrackQuality()
    stream = VideoStream(net)
    for seed in seeds:
        scene = Scene(seed, num_frames=num_frames)
        stream.reset()
        quality.start_video()
        for t, (image, true_ids) in enumerate(scene.frames()):
            segments = stream.push(image, t * FRAME_NS)
            classes = {segment.track_id: segment.class_id for segment in segments.segments}
            quality.update(true_ids, segments.ids, scene.class_of, classes)
    return quality.result()
