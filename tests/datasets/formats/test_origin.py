from __future__ import annotations

import json

import pytest
from PIL import Image

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.synthetic.writing import write_dataset

NAMES = {'ytvis': 'ytvis2019', 'vipseg': 'vipseg', 'vspw': 'vspw'}
FILES = {'ytvis': 'valid.json', 'vipseg': 'panoptic_gt_VIPSeg_val.json', 'vspw': 'info.json'}


@pytest.mark.parametrize('family', list(NAMES))
@pytest.mark.parametrize('info', [None, {}, [], {'drawn': 'yes'}, {'drawn': False}])
def test_data_are_drawn_only_if_their_files_say_so(tmp_path, family, info):
    root = tmp_path / 'data'
    write_dataset(family, root, num_videos=1, num_frames=2)
    assert open_dataset(NAMES[family], root).is_drawn
    path = root / FILES[family]
    content = json.loads(path.read_text())
    del content['info']
    if info is not None:
        content['info'] = info
    path.write_text(json.dumps(content))
    assert not open_dataset(NAMES[family], root).is_drawn


@pytest.mark.parametrize('content', ['{', '[]', None])
def test_a_file_of_that_name_may_hold_anything(tmp_path, content):
    write_dataset('vspw', tmp_path / 'data', num_videos=1, num_frames=2)
    path = tmp_path / 'data' / 'info.json'
    path.unlink() if content is None else path.write_text(content)
    assert not open_dataset('vspw', tmp_path / 'data').is_drawn


@pytest.mark.parametrize('is_drawn', [False, True])
def test_images_of_coco_may_be_drawn(tmp_path, is_drawn):
    Image.new('RGB', (8, 6)).save(tmp_path / '1.jpg')
    Image.new('RGB', (8, 6)).save(tmp_path / '1.png')
    image = {'id': 1, 'width': 8, 'height': 6, 'file_name': '1.jpg'}
    content = {'info': {'drawn': is_drawn}, 'images': [image], 'annotations': []}
    content['categories'] = [{'id': 1, 'name': 'a', 'isthing': 1}]
    (tmp_path / 'val2017.json').write_text(json.dumps(content))
    assert open_dataset('coco', tmp_path).is_drawn == is_drawn
    entry = {'image_id': 1, 'file_name': '1.png', 'segments_info': []}
    (tmp_path / 'panoptic_val2017').mkdir()
    (tmp_path / '1.png').rename(tmp_path / 'panoptic_val2017' / '1.png')
    content['annotations'] = [entry]
    (tmp_path / 'panoptic_val2017.json').write_text(json.dumps(content))
    assert open_dataset('coco_panoptic', tmp_path).is_drawn == is_drawn
