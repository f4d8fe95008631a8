from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.labelme import labelme_folders, load_labelme
from videomt_ros.datasets.rle import decode

BOX = [[10, 10], [50, 10], [50, 40], [10, 40]]
OTHER = [[60, 10], [70, 10], [70, 20], [60, 20]]


def frame(*shapes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Content of a file as labelme 6 writes it."""
    content = {'version': '6.3.1', 'flags': {}, 'shapes': list(shapes), 'imageData': None}
    return {**content, 'imagePath': 'x.jpg', 'imageHeight': 48, 'imageWidth': 80, **changes}


def shape(label: str, group: int | None, points: Any, **changes: Any) -> dict[str, Any]:
    content = {'label': label, 'points': points, 'group_id': group, 'description': ''}
    return {**content, 'shape_type': 'polygon', 'flags': {}, 'mask': None, **changes}


def png(mask: np.ndarray) -> str:
    """Encode a mask as labelme does."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format='PNG')
    return base64.b64encode(file.getvalue()).decode()


def write(root: Path, files: dict[str, Any]) -> Path:
    """Write JSON files, and an empty image beside each; None: the image alone."""
    for name, content in files.items():
        path = root / f'{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_text(json.dumps(content))
        path.with_suffix('.jpg').touch()
    return root


def load(root: Path, **options: Any):
    return load_labelme(root, labelme_folders(root), **options)


def test_shapes_of_one_label_and_group_are_one_object(tmp_path):
    """In the first video, star 7 has two parts in frame 9 and is hidden in frame 10."""
    files = {
        'left/9': frame(shape('star', 7, BOX), shape('circle', 1, BOX), shape('star', 7, OTHER)),
        'left/10': frame(shape('circle', 1, OTHER)),
        'left/11': None,
        'right/9': frame(shape('star', 7, OTHER)),
    }
    truth = load(write(tmp_path, files))
    assert [category.name for category in truth.categories] == ['circle', 'star']
    assert [video.frame_names for video in truth.videos] == [
        ('left/9.jpg', 'left/10.jpg', 'left/11.jpg'),
        ('right/9.jpg',),
    ]
    star, circle = truth.tracks(1)
    assert (star.category_id, circle.category_id) == (2, 1)
    assert star.areas == [1300, None, None] and circle.areas == [1200, 100, None]
    assert star.masks[1] is None and decode(star.masks[0]).sum() == 1300
    assert [track.areas for track in truth.tracks(2)] == [[100]]
    assert any('read as labelme: 2 videos, 4 frames, 3 objects.' in n for n in truth.notes)


def test_masks_of_pixels_are_read(tmp_path):
    part = np.zeros((5, 7), bool)
    part[1:, 2] = True
    drawn = shape('star', 1, [[20, 10], [26, 14]], shape_type='mask', mask=png(part))
    (track,) = load(write(tmp_path, {'a': frame(drawn)})).tracks(1)
    mask = decode(track.masks[0])
    assert mask.sum() == 4 and mask[11:15, 22].all()


def test_a_group_with_two_labels_is_two_objects_with_a_note(tmp_path):
    files = {'0': frame(shape('star', 7, BOX)), '1': frame(shape('ring', 7, BOX))}
    truth = load(write(tmp_path, files))
    assert len(truth.tracks(1)) == 2
    assert any('has the labels ring, star' in note for note in truth.notes)


def test_files_without_images_keep_the_names_that_labelme_knew(tmp_path):
    path = '..\\frames\\a.PNG'
    (tmp_path / 'a.json').write_text(json.dumps(frame(shape('star', 1, BOX), imagePath=path)))
    assert load(tmp_path).videos[0].frame_names == ('a.PNG',)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (frame(shape('star', None, BOX)), 'a.json: expected a group_id for each shape'),
        (frame(shape('star', 1, BOX[:2], shape_type='rectangle')), 'got star as rectangle'),
        (frame(shape('star', 1, BOX[:2])), 'has no mask in any frame'),
        (frame(shape('star', 1, [[1], [2]])), r'a.json: expected points as \[\[x, y\], ...\]'),
        (frame(shape('star', 1, BOX, shape_type='mask', mask='?')), 'the mask of star as a PNG'),
        (
            frame(shape('star', 1, [[79, 0]], shape_type='mask', mask=png(np.ones((2, 2), bool)))),
            'the mask of star reaches beyond the image',
        ),
        (frame(shape('', 1, BOX)), 'a.json: expected label to be a text'),
        (frame(3), 'a.json: expected shapes as objects, got 3'),
        (frame(shape('star', 1, BOX), imageWidth=None), 'width'),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, content, words):
    with pytest.raises(DatasetError, match=words) as caught:
        load(write(tmp_path, {'a': content}))
    assert '\n' not in str(caught.value)


def test_a_file_that_is_no_json_is_named_or_left_out_and_costs_no_other(tmp_path):
    files = {name: frame(shape('a', 1, BOX)) for name in ('v/0', 'v/1', 'w/0')}
    root = write(tmp_path, files)
    (root / 'v' / '0.json').write_text('{')
    with pytest.raises(DatasetError, match=r'v/0\.json: Expected JSON, but it breaks'):
        load(root)
    truth = load(root, skip_bad=True)
    assert [truth.tracks(video.video_id)[0].areas for video in truth.videos] == [
        [None, 1200],
        [1200],
    ]
    assert len(truth.left_out) == 1


def test_shapes_without_a_group_are_told_once_whatever_their_labels(tmp_path):
    files = {str(k): frame(shape(f'class {k}', None, BOX)) for k in range(5)}
    with pytest.raises(DatasetError, match='and 3 more like this') as caught:
        load(write(tmp_path, files))
    assert '(2)' not in str(caught.value)


def test_a_group_may_be_a_float_without_a_fraction(tmp_path):
    files = {'0': frame(shape('a', 3.0, BOX)), '1': frame(shape('a', 3, BOX))}
    (track,) = load(write(tmp_path, files)).tracks(1)
    assert track.areas == [1200, 1200]


def test_images_of_several_sizes_are_no_video(tmp_path):
    files = {'0': frame(shape('a', 1, BOX)), '1': frame(shape('a', 1, BOX), imageWidth=90)}
    with pytest.raises(DatasetError, match='expected images of one size, got 0.json: 80 x 48 and'):
        load(write(tmp_path, files))


def test_a_json_without_its_image_is_named(tmp_path):
    root = write(tmp_path, {'0': frame(shape('a', 1, BOX)), '1': frame(shape('a', 1, BOX))})
    (root / '1.jpg').unlink()
    with pytest.raises(DatasetError, match='1.json: there is no image of this name beside it'):
        load(root)


def test_bad_shapes_are_left_out_on_request(tmp_path):
    files = {'0': frame(shape('a', 1, BOX), shape('a', None, BOX))}
    truth = load(write(tmp_path, files), skip_bad=True)
    assert len(truth.tracks(1)) == len(truth.left_out) == 1
