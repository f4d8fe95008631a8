"""What a run says of its data before the first step, and of other data when it is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.labelled_data import SIZE, scene_objects, write_labelled
from tests.training.runs import tiny_network, tiny_settings
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.training.data import Mixture
from videomt_ros.training.data_fit import misfits, most_in_a_clip
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import Phase, TrainSettings
from videomt_ros.training.trainer import train


def labelled_settings(folder: Path, dataset: str, *overrides: str) -> TrainSettings:
    """Return the settings of a run of 2 steps on a data set in `folder/data`."""
    path = folder / 'run.yaml'
    path.write_text(
        tiny_network(len(CLASS_NAMES), class_names=list(CLASS_NAMES))
        + f"""
data: [{{dataset: {dataset}, root: {folder}/data, split: val}}]
phases: [{{steps: 2, clip_frames: 2, batch_size: 1}}]
augmentation: {{short_sides: [32], max_long_side: 64}}
losses: {{num_points: 16}}
out: {folder}/out
warmup_steps: 0
vit_warmup_steps: null
device: cpu
precision: fp32
workers: 0
threads: 1
checkpoint_every: 1
"""
    )
    return load_settings(path, overrides)


def remarks(settings: TrainSettings) -> list[str]:
    return list(misfits(settings, Mixture(settings)))


@pytest.mark.parametrize(
    'dataset', ['ytvis2019', 'ovis', 'vipseg', 'vspw', 'coco', 'coco_panoptic']
)
def test_more_objects_than_queries_are_told(tmp_path, dataset):
    write_labelled(dataset, tmp_path / 'data', num_videos=4)
    (told,) = remarks(labelled_settings(tmp_path, dataset, 'network.num_queries=1'))
    name = f'data.0 ({dataset} in {tmp_path}/data, split val)'
    found = 4
    if dataset.startswith('coco'):  # has the first frames of these scenes alone
        found = sum(len(scene_objects(Scene(number, *SIZE), [0])) > 1 for number in range(4))
        assert 0 < found < 4
    assert told.startswith(f'{name}: {found} of 4 videos show')
    assert 'more objects in a clip than the 1 queries' in told and 'network.num_queries' in told
    assert remarks(labelled_settings(tmp_path, dataset)) == []


def test_scenes_with_more_objects_than_queries_are_told(tmp_path):
    (told,) = remarks(tiny_settings(tmp_path / 'out', 'network.num_queries=7'))
    assert 'scenes show up to 8 objects, more than the 7 queries' in told
    assert remarks(tiny_settings(tmp_path / 'out', 'network.num_queries=8')) == []


@pytest.mark.parametrize(
    ('phase', 'expected'),
    [
        ({'clip_frames': 1}, 2),
        ({'clip_frames': 2}, 3),  # frames 2 and 3
        ({'clip_frames': 2, 'max_stride': 2}, 4),  # frames 0 and 2
        ({'clip_frames': 3}, 4),
        ({'clip_frames': 2, 'frame_range': 1}, 4),  # any of frames 1, 2 and 3
        ({'clip_frames': 9, 'max_stride': 5}, 6),  # the whole video, to and fro
    ],
)
def test_objects_are_counted_in_the_clips_of_a_phase(phase, expected):
    visible = [{1, 2}, {2}, {3, 4}, {4, 5}, {6, 5}]
    assert most_in_a_clip(visible, Phase(steps=1, batch_size=1, **phase)) == expected


def test_clips_longer_than_the_videos_are_told(tmp_path):
    write_labelled('ytvis2019', tmp_path / 'data')
    (told,) = remarks(labelled_settings(tmp_path, 'ytvis2019', 'phases.0.clip_frames=5'))
    assert '2 of 2 videos have fewer frames than phases.0.clip_frames=5, the shortest 4' in told
    assert 'played to and fro' in told
    (told,) = remarks(
        labelled_settings(
            tmp_path, 'ytvis2019', 'phases.0.clip_frames=5', 'phases.0.frame_range=3'
        )
    )
    assert 'repeated in part' in told
    assert remarks(labelled_settings(tmp_path, 'ytvis2019', 'phases.0.clip_frames=4')) == []


def test_images_of_coco_are_meant_to_be_clips(tmp_path):
    write_labelled('coco', tmp_path / 'data')
    assert remarks(labelled_settings(tmp_path, 'coco', 'phases.0.clip_frames=5')) == []


def test_remarks_come_once_and_before_the_first_step(tmp_path, caplog):
    caplog.set_level('INFO')
    settings = tiny_settings(tmp_path / 'out', 'network.num_queries=7', 'precision=fp16')
    train(settings)
    text = caplog.text
    assert text.count('more than the 7 queries') == text.count('precision=fp16 is made for') == 1
    assert text.index('more than the 7 queries') < text.index('step 1 of 6')
    assert text.index('precision=fp16 is made for') < text.index('step 1 of 6')


def annotations(folder: Path) -> Path:
    (path,) = (folder / 'data').rglob('*.json')
    return path


def resume(folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Resume a copy of a run of `labelled_settings`, and return what it says of its data."""
    caplog.clear()
    copy = folder / f'copy-{len(list(folder.glob("copy-*")))}'
    shutil.copytree(folder / 'out', copy)
    train(labelled_settings(folder, 'ytvis2019', f'out={copy}'), resume=True)
    return [record.message for record in caplog.records if 'started with' in record.message]


def test_a_resume_with_other_data_is_told(tmp_path, caplog):
    write_labelled('ytvis2019', tmp_path / 'data', num_videos=3)
    train(labelled_settings(tmp_path, 'ytvis2019'))
    (tmp_path / 'out/checkpoints/step=2.ckpt').unlink()
    assert resume(tmp_path, caplog) == []

    path = annotations(tmp_path)
    text = path.read_text()
    path.write_text(f'{text}  ')
    (told,) = resume(tmp_path, caplog)
    assert told.startswith('data.0 is not what the run was started with: annotation files of')
    assert f'{len(text):,} bytes then, {len(text) + 2:,} now' in told

    path.write_text(text.replace('00001.jpg', '00000.jpg'))
    (told,) = resume(tmp_path, caplog)
    assert 'as many videos, 3, but with other names, sizes or frames' in told

    content = json.loads(text)
    gone = content['videos'].pop()['id']
    content['annotations'] = [a for a in content['annotations'] if a['video_id'] != gone]
    path.write_text(json.dumps(content))
    (told,) = resume(tmp_path, caplog)
    assert '3 videos then, 2 now' in told


def test_a_resume_with_other_classes_is_refused(tmp_path, caplog):
    write_labelled('ytvis2019', tmp_path / 'data')
    train(labelled_settings(tmp_path, 'ytvis2019'))
    path = annotations(tmp_path)
    content = json.loads(path.read_text())
    first = content['categories'][0]
    first['name'] = 'unknown'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'data.0 has other classes: {CLASS_NAMES[0]} is gone'):
        resume(tmp_path, caplog)
    assert 'step 2 of 2' not in caplog.text
