from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from videomt_ros.cli import main
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.datasets.synthetic.writing import START_NS, write_dataset

SEED, FRAMES = 7, 6


@pytest.fixture(scope='module')
def scenes():
    return [Scene(SEED + i, num_frames=FRAMES) for i in range(2)]


def written(tmp_path, benchmark):
    out = tmp_path / benchmark
    write_dataset(benchmark, out, num_videos=2, num_frames=FRAMES, seed=SEED)
    return out


def frame_shown(path, scene) -> int:
    """The frame of the scene that a JPEG file is nearest to."""
    shown = np.array(Image.open(path)).astype(float)
    return int(np.argmin([np.abs(shown - image).mean() for image, _ in scene.frames()]))


def test_youtube_vis_masks_are_those_of_the_scene(tmp_path, scenes):
    out = written(tmp_path, 'ytvis')
    truth = json.loads((out / 'valid.json').read_text())
    assert [c['name'] for c in truth['categories']] == list(CLASS_NAMES)
    assert [c['id'] for c in truth['categories']] == [1, 2, 3, 4, 5, 6]
    for video, scene in zip(truth['videos'], scenes, strict=True):
        tracks = [a for a in truth['annotations'] if a['video_id'] == video['id']]
        for t, (_, ids) in enumerate(scene.frames()):
            path = out / 'valid' / 'JPEGImages' / video['file_names'][t]
            assert frame_shown(path, scene) == t
            found = np.zeros(ids.shape, np.uint8)
            for track in tracks:
                rle = track['segmentations'][t]
                assert (rle is None) == (track['areas'][t] is None) == (track['bboxes'][t] is None)
                if rle is not None:
                    mask = coco_mask.decode(rle)
                    assert mask.sum() == track['areas'][t]
                    found += mask * np.uint8(track['category_id'])
            expected = np.array([0, *(scene.class_of[k] + 1 for k in sorted(scene.class_of))])[ids]
            assert (found == expected).all()


def test_vipseg_pngs_hold_the_identities_of_the_scene(tmp_path, scenes):
    out = written(tmp_path, 'vipseg')
    truth = json.loads((out / 'panoptic_gt_VIPSeg_val.json').read_text())
    assert {c['id']: c['name'] for c in truth['categories']} == dict(enumerate(CLASS_NAMES))
    for video, frames, scene in zip(truth['videos'], truth['annotations'], scenes, strict=True):
        assert frames['video_id'] == video['video_id']
        for t, (_, ids) in enumerate(scene.frames()):
            name = video['images'][t]['file_name']
            jpeg = out / 'images' / video['video_id'] / name.replace('.png', '.jpg')
            assert frame_shown(jpeg, scene) == t
            rgb = np.array(Image.open(out / 'panomasksRGB' / video['video_id'] / name))
            assert (rgb.astype(int) @ [1, 256, 65536] == ids).all()
            for segment in frames['annotations'][t]['segments_info']:
                mask = ids == segment['id']
                x, y, width, height = segment['bbox']
                assert segment['area'] == mask.sum() == mask[y : y + height, x : x + width].sum()
                assert segment['category_id'] == scene.class_of[segment['id']]
            listed = {s['id'] for s in frames['annotations'][t]['segments_info']}
            assert listed == set(np.unique(ids)) - {0}


def test_vspw_masks_hold_the_classes_counted_from_one(tmp_path, scenes):
    out = written(tmp_path, 'vspw')
    names = (out / 'val.txt').read_text()
    assert names.endswith('\n')
    for name, scene in zip(names.split(), scenes, strict=True):
        for t, (_, ids) in enumerate(scene.frames()):
            stamp = START_NS + t * 100_000_000
            assert frame_shown(out / 'data' / name / 'origin' / f'{stamp}.jpg', scene) == t
            mask = np.array(Image.open(out / 'data' / name / 'mask' / f'{stamp}.png'))
            assert mask.dtype == np.uint8
            assert ((mask == 0) == (ids == 0)).all()
            for identity, class_id in scene.class_of.items():
                assert (mask[ids == identity] == class_id + 1).all()


def with_stuff(tmp_path, benchmark) -> tuple[Path, list[Scene]]:
    out = tmp_path / benchmark
    arguments = ['synth', '--format', benchmark, '--videos', '2', '--frames', '3', '--stuff']
    assert main([*arguments, '--size', '48', '64', '--seed', str(SEED), '--out', str(out)]) == 0
    return out, [Scene(SEED + i, 48, 64, num_frames=3, stuff=True) for i in range(2)]


def test_vipseg_with_stuff_is_read_back_as_it_is(tmp_path):
    out, scenes = with_stuff(tmp_path, 'vipseg')
    data = open_dataset('vipseg', out)
    assert [category.name for category in data.categories] == list(ALL_NAMES)
    assert [category.is_thing for category in data.categories] == 6 * [True] + 3 * [False]
    truth = load_vipseg(data.truth[0], data.truth_masks)
    for video, scene in zip(truth.videos, scenes, strict=True):
        for t, (_, ids) in enumerate(scene.frames()):
            assert np.array_equal(truth.ids(video.video_id, t), ids)
            listed = {s['id']: s['category_id'] for s in truth.segments(video.video_id, t)}
            assert listed == {i: scene.class_of[i] for i in np.unique(ids).tolist()}


def test_vspw_with_stuff_is_read_back_as_it_is(tmp_path):
    out, scenes = with_stuff(tmp_path, 'vspw')
    numbers = json.loads((out / 'label_num_dic_final.json').read_text())
    assert numbers == {name: k for k, name in enumerate(ALL_NAMES, start=1)}
    truth = load_vspw(open_dataset('vspw', out).truth[0])
    for video, scene in zip(truth.videos, scenes, strict=True):
        for t, (_, ids) in enumerate(scene.frames()):
            classes = np.array([-1, *scene.class_of.values()])[ids]
            assert np.array_equal(truth.mask(video.video_id, t), classes + 1)


def test_youtube_vis_has_no_stuff(tmp_path, capsys):
    arguments = ['synth', '--format', 'ytvis', '--stuff', '--videos', '1', '--out']
    assert main([*arguments, str(tmp_path / 'x')]) == 1
    assert 'Expected vipseg or vspw' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_equal_seeds_give_equal_files(tmp_path):
    files = []
    for run in ('a', 'b'):
        (tmp_path / run).mkdir()
        out = written(tmp_path / run, 'vipseg')
        files.append({p.relative_to(out): p.read_bytes() for p in out.rglob('*') if p.is_file()})
    assert files[0] == files[1]


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / 'mine').write_text('precious')
    arguments = ['synth', '--format', 'ytvis', '--videos', '1', '--out', str(tmp_path)]
    assert main(arguments) == 1
    assert 'new or empty' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['mine']


def test_a_scene_that_cannot_be_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match='8 x 8 pixels'):
        write_dataset('ytvis', tmp_path / 'x', num_videos=1, size=(1, 1))
    assert not list(tmp_path.iterdir())


def test_no_videos_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='got 0 videos'):
        write_dataset('vspw', tmp_path / 'x', num_videos=0)


def test_images_have_the_size_that_was_asked_for(tmp_path):
    out = tmp_path / 'small'
    assert (
        main(
            ['synth', '--format', 'vspw', '--videos', '1', '--frames', '1', '--out', str(out)]
            + ['--size', '40', '60']
        )
        == 0
    )
    [image] = (out / 'data').glob('*/origin/*.jpg')
    assert Image.open(image).size == (60, 40)


def test_shapes_vanish_behind_a_wall_for_as_long_as_asked(tmp_path):
    out = tmp_path / 'walled'
    arguments = ['--format', 'ytvis', '--videos', '1', '--frames', '60', '--size', '96', '120']
    assert main(['synth', *arguments, '--hidden-frames', '10', '25', '--out', str(out)]) == 0
    scene = Scene(0, 96, 120, 60, hidden_frames=(10, 25))
    tracks = json.loads((out / 'valid.json').read_text())['annotations']
    expected = [[k for k in scene.class_of if (ids == k).any()] for _, ids in scene.frames()]
    shown = [sum(track['areas'][t] is not None for track in tracks) for t in range(60)]
    assert shown == [len(visible) for visible in expected]
    assert min(shown) < len(tracks)


def test_a_wall_hides_no_fewer_than_two_frames(tmp_path, capsys):
    arguments = ['synth', '--format', 'ytvis', '--videos', '1', '--hidden-frames', '1', '3']
    assert main([*arguments, '--out', str(tmp_path / 'x')]) == 1
    assert 'Expected hidden_frames as fewest and most' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scenes_are_as_hard_as_asked(tmp_path):
    out = tmp_path / 'hard'
    arguments = ['--format', 'ytvis', '--videos', '1', '--frames', '60', '--size', '48', '60']
    options = ['--away-frames', '10', '25', '--alike', '2', '--objects', '3', '--hard']
    assert main(['synth', *arguments, *options, '--out', str(out)]) == 0
    scene = Scene(0, 48, 60, 60, num_objects=3, away_frames=(10, 25), alike=2, hard=True)
    tracks = json.loads((out / 'valid.json').read_text())['annotations']
    assert [track['category_id'] - 1 for track in tracks] == [*scene.class_of.values()]
    for identity, track in zip(scene.class_of, tracks, strict=True):
        areas = [int((ids == identity).sum()) for _, ids in scene.frames()]
        assert [area or 0 for area in track['areas']] == areas
        assert 0 in areas
