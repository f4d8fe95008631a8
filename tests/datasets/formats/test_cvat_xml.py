from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.formats.exported import cvat_xml
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.cvat_xml import load_cvat_xml
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.rle import decode, to_rle
from videomt_ros.datasets.synthetic.writing import write_dataset

LEFT = [[0, 0, 3, 0, 3, 4, 0, 4]]
RING = {'size': [8, 10], 'counts': [9, 3, 5, 1, 1, 1, 5, 3, 52]}


def small() -> dict[str, Any]:
    """Three frames; the first object hides in the middle, the second begins there."""
    return {
        'categories': [{'id': 1, 'name': 'dog & co'}, {'id': 2, 'name': 'person'}],
        'videos': [{'id': 1, 'height': 8, 'width': 10, 'file_names': ['0', '1', '2']}],
        'annotations': [
            {'video_id': 1, 'category_id': 2, 'segmentations': [LEFT, None, LEFT]},
            {'video_id': 1, 'category_id': 1, 'segmentations': [None, RING, RING]},
        ],
    }


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def export(path: Path, *changes: tuple[str, str], **options: int) -> Path:
    """Write the small video, with texts replaced."""
    truth = small()
    text = cvat_xml(truth, truth['videos'][0], **options)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return written(path / 'annotations.xml', text)


def test_tracks_are_read_with_their_gaps(tmp_path):
    truth = load_cvat_xml(export(tmp_path))
    assert [category.name for category in truth.categories] == ['dog & co', 'person']
    (video,) = truth.videos
    assert (video.name, video.size) == ('clip', (8, 10))
    assert video.frame_names == ('frame_000000', 'frame_000001', 'frame_000002')
    first, second = truth.tracks(1)
    assert (first.track_id, first.category_id) == (0, 2)
    assert [mask and int(decode(mask).sum()) for mask in first.masks] == [12, None, 12]
    ring = decode(to_rle(RING, 8, 10))
    assert second.masks[0] is None and np.array_equal(decode(second.masks[2]), ring)
    assert list(second.areas) == [None, 8, 8]
    assert truth.notes == ('annotations.xml: read as CVAT for video: 3 frames, 2 tracks.',)


def test_a_task_may_take_some_frames_of_its_video(tmp_path):
    truth = load_cvat_xml(export(tmp_path, start=20, step=5))
    assert truth.videos[0].frame_names == ('frame_000020', 'frame_000025', 'frame_000030')
    assert [mask is None for mask in truth.tracks(1)[0].masks] == [False, True, False]


def test_masks_of_drawn_scenes_survive(tmp_path):
    write_dataset('ytvis', tmp_path / 'data', 1, 6, seed=8, size=(48, 64), hidden_frames=(2, 3))
    content = json.loads((tmp_path / 'data/valid.json').read_text())
    text = cvat_xml(content, content['videos'][0])
    same = load_cvat_xml(written(tmp_path / 'annotations.xml', text))
    pairs = zip(load_ytvis(tmp_path / 'data/valid.json').tracks(1), same.tracks(1), strict=True)
    for one, other in pairs:
        assert one.category_id == other.category_id
        assert list(one.areas) == list(other.areas)
        for mask, again in zip(one.masks, other.masks, strict=True):
            assert (mask is None) == (again is None)
            assert mask is None or np.array_equal(decode(mask), decode(again))


def test_a_gap_that_no_shape_announces_is_a_gap_with_a_note(tmp_path):
    changes = ('frame="1" keyframe="1" outside="1"', 'frame="0" keyframe="1" outside="1"')
    text = export(tmp_path).read_text()
    head, _, tail = text.partition('<polygon frame="1"')
    text = head + tail.partition('</polygon>')[2]
    truth = load_cvat_xml(written(tmp_path / 'annotations.xml', text))
    assert changes[0] not in text
    assert truth.tracks(1)[0].masks[1] is None
    assert any('1 gap of tracks' in note for note in truth.notes)


def test_an_export_of_a_project_with_one_task_is_read(tmp_path):
    text = export(tmp_path).read_text()
    task = text[text.index('<task>') : text.index('</task>') + len('</task>')]
    labels = task[task.index('<labels>') : task.index('</labels>') + len('</labels>')]
    project = f'<project>{labels}<tasks>{task.replace(labels, "")}</tasks></project>'
    path = written(tmp_path / 'annotations.xml', text.replace(task, project))
    assert [category.name for category in load_cvat_xml(path).categories] == ['dog & co', 'person']
    path.write_text(text.replace(task, f'<project><tasks>{task}{task}</tasks></project>'))
    with pytest.raises(DatasetError, match='Expected one task, got 2. Export each task'):
        load_cvat_xml(path)


def test_an_export_of_a_job_is_read(tmp_path):
    """Its size stands beside it, and its frames go on from those of the job before."""
    text = export(tmp_path, start=40).read_text().replace('task>', 'job>')
    size = text[text.index('<original_size>') : text.index('</original_size>') + 16]
    text = text.replace(size, '').replace('</job>', f'</job>{size}')
    video = load_cvat_xml(written(tmp_path / 'annotations.xml', text)).videos[0]
    assert video.size == (8, 10) and video.frame_names[0] == 'frame_000040'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (('<polygon frame="0"', '<box frame="0"'), None),
        (('points="0.00,0.00;', 'points="0.00;'), 'Track 0, frame 0: expected points as x,y;x,y'),
        (('points="0.00,0.00;', 'points="nan,0.00;'), 'Track 0, frame 0: expected polygons'),
        (('frame="0"', 'frame="7"'), 'Track 0, frame 7: expected one of the frames 0 to 2'),
        (('left="1"', 'left="9"'), 'Track 1, frame 1: expected a mask within 10 x 8 pixels'),
        (('rle="0, 4', 'rle="0, x'), 'Track 1, frame 1: expected a mask of rle, left, top'),
        (('rle="0, 4', 'rle="0, 5'), 'Track 1, frame 1: expected a mask within'),
        (('label="person"', 'label=""'), 'Track 0, frame 0: its track has no label'),
        (('<height>8<', '<height>-8<'), 'Expected original_size, the size of the images'),
        (
            ('<start_frame>0<', '<start_frame>9<'),
            'Expected a range of frames, got start 9 and stop 2',
        ),
        (('</annotations>', ''), 'Is the file complete?'),
        (('<annotations>', '<a>'), 'Expected XML, but mismatched tag'),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, change, words):
    changes = [change]
    if words is None:
        changes.append(('</polygon>', '</box>'))
        words = 'Track 0, frame 0: expected a polygon or a mask, got a box (person)'
    path = export(tmp_path, *changes)
    with pytest.raises(DatasetError) as caught:
        load_cvat_xml(path)
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_bad_shapes_are_left_out_on_request(tmp_path):
    path = export(tmp_path, ('left="1"', 'left="9"'))
    truth = load_cvat_xml(path, skip_bad=True)
    assert [mask is None for mask in truth.tracks(1)[1].masks] == [True, True, False]
    assert len(truth.left_out) == 1


@pytest.mark.parametrize('content', ['<image id="0" name="a.jpg"/>', ''])
def test_a_file_without_tracks_says_what_to_export(tmp_path, content):
    path = written(tmp_path / 'a.xml', f'<annotations>{content}</annotations>')
    with pytest.raises(DatasetError, match='Export the task as "CVAT for video 1.1"'):
        load_cvat_xml(path)
