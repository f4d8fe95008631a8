"""`videomt convert`, from what labelling tools write to figures of `evaluate` and `score`."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.datasets.formats.exported import cocovid, cvat_coco, cvat_xml, objects, write_pngs
from videomt_ros.cli import main
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.formats.instance_files import YtvisTruth
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.rle import decode
from videomt_ros.datasets.synthetic.writing import write_dataset

SIZE = (64, 96)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory) -> Path:
    """Three videos of eight frames."""
    out = tmp_path_factory.mktemp('drawn') / 'data'
    write_dataset('ytvis', out, 3, 8, seed=3, size=SIZE, hidden_frames=(2, 3))
    return out


@pytest.fixture(scope='module')
def content(drawn) -> dict[str, Any]:
    return json.loads((drawn / 'valid.json').read_text())


def images(drawn: Path, video: dict[str, Any]) -> list[Path]:
    return [drawn / 'valid/JPEGImages' / name for name in video['file_names']]


def one_video(content: dict[str, Any]) -> dict[str, Any]:
    """The first video alone, as a file of YouTube-VIS."""
    video = content['videos'][0]
    return {**content, 'videos': [video], 'annotations': objects(content, video)}


def convert(*words: object) -> int:
    return main(['convert', *map(str, words)])


def opened(out: Path, split: str = 'valid') -> tuple[Dataset, YtvisTruth]:
    dataset = open_dataset('ytvis2019', out, split)
    return dataset, load_ytvis(dataset.truth[0])


def assert_masks(out: Path, path: Path) -> None:
    """The converted objects are those of a file."""
    (_, same), truth = opened(out), load_ytvis(path)
    for one, other in zip(truth.videos, same.videos, strict=True):
        pairs = zip(truth.tracks(one.video_id), same.tracks(other.video_id), strict=True)
        for a, b in pairs:
            assert a.category_id == b.category_id and list(a.areas) == list(b.areas)
            for mask, again in zip(a.masks, b.masks, strict=True):
                assert (mask is None) == (again is None)
                assert mask is None or np.array_equal(decode(mask), decode(again))


@pytest.fixture(params=['folder', 'zip'])
def cvat_export(request, tmp_path, drawn, content) -> Path:
    """The first video as CVAT's "COCO 1.0", with its images."""
    root = tmp_path / 'my task'
    (root / 'annotations').mkdir(parents=True)
    export = cvat_coco(content, content['videos'][0])
    (root / 'annotations/instances_default.json').write_text(json.dumps(export))
    write_pngs(images(drawn, content['videos'][0]), root / 'images/default')
    if request.param == 'zip':
        return Path(shutil.make_archive(str(tmp_path / 'my task 1.0'), 'zip', root))
    return root


def test_an_export_of_cvat_becomes_a_data_set(tmp_path, capsys, drawn, content, cvat_export):
    out = tmp_path / 'out/data'
    assert convert(cvat_export, '--out', out, '--fps', 10) == 0
    printed, told = capsys.readouterr()
    proposed = printed.splitlines()[-1]
    assert proposed.startswith('videomt evaluate --model MODEL --dataset ytvis2019 --root')
    assert 'track ids connect its images: 1 video, 8 frames' in told
    (tmp_path / 'one.json').write_text(json.dumps(one_video(content)))
    assert_masks(out, tmp_path / 'one.json')
    (video,) = opened(out)[0].videos
    assert video.name == ('my_task' if cvat_export.is_dir() else 'my_task_1.0')
    assert [frame.stamp_ns for frame in video.frames()][1] == 100_000_000
    for frame, path in zip(video.frames(), images(drawn, content['videos'][0]), strict=True):
        assert np.array_equal(frame.image, Image.open(path))
    assert sorted(path.name for path in out.parent.iterdir()) == ['data']


def test_figures_are_those_of_the_source(tmp_path, drawn, content):
    """`evaluate` on the drawn data, on CocoVID, on what it is converted to, and `score`."""
    root = tmp_path / 'cocovid'
    shutil.copytree(drawn / 'valid/JPEGImages', root / 'images')
    listed = cocovid(content)
    for video in listed['videos']:
        video['fps'] = 10  # as `mot2coco.py` writes it; the live mode depends on it
    (root / 'valid.json').write_text(json.dumps(listed))
    assert convert(root, '--out', tmp_path / 'converted') == 0
    figures = []
    for number, data in enumerate([drawn, root, tmp_path / 'converted']):
        out = tmp_path / f'run{number}'
        words = ['--model', 'demo', '--dataset', 'ytvis2019', '--root', str(data)]
        run = ['--mode', 'live', '--limit', '1', '--set', 'confirm_frames=1', '--out', str(out)]
        assert main(['evaluate', *words, *run]) == 0
        metrics = json.loads((out / 'metrics.json').read_text())
        figures.append(metrics['live']['figures'])
        results = ['--results', str(tmp_path / 'run0/live'), '--json', str(out / 'score.json')]
        truth = ['--truth', str(data / 'valid.json')]
        assert main(['score', '--benchmark', 'ytvis', *truth, *results]) == 0
        figures.append(json.loads((out / 'score.json').read_text())['figures'])
    evaluated, scored = figures[::2], figures[1::2]
    assert scored[0] == scored[1] == scored[2]
    assert evaluated[0] == evaluated[1] == evaluated[2] and evaluated[0]['AP'] > 0


def test_several_exports_become_one_data_set(tmp_path, capsys, drawn, content):
    """Tasks of CVAT, each of which counts from 0, with other categories in the second."""
    for number, video in enumerate(content['videos'][:2]):
        root = tmp_path / f'task{number}'
        (root / 'annotations').mkdir(parents=True)
        export = cvat_coco(content, video)
        if number:
            for k, category in enumerate(export['categories']):
                category['id'] = 50 - k
            for annotation in export['annotations']:
                annotation['category_id'] = 51 - annotation['category_id']
            export['categories'].append({'id': 7, 'name': 'other'})
        (root / 'annotations/instances_default.json').write_text(json.dumps(export))
        write_pngs(images(drawn, video), root / 'images/default')
    tasks = [tmp_path / 'task0', tmp_path / 'task1']
    text = fails(capsys, tmp_path / 'data', *tasks, '--frames', drawn)
    assert 'Expected one source with --frames' in text
    assert convert(*tasks, '--out', tmp_path / 'data') == 0
    assert 'task1: instances_default.json: read as' in capsys.readouterr().err
    dataset, truth = opened(tmp_path / 'data')
    assert [video.name for video in dataset.videos] == ['task0', 'task1']
    assert [c.name for c in dataset.categories][-2:] == ['cross', 'other']
    names = {category.category_id: category.name for category in dataset.categories}
    first = {category['id']: category['name'] for category in content['categories']}
    numbers = set()
    for video, source in zip(truth.videos, content['videos'], strict=False):
        tracks = truth.tracks(video.video_id)
        numbers |= {track.track_id for track in tracks}
        expected = [first[item['category_id']] for item in objects(content, source)]
        assert [names[track.category_id] for track in tracks] == expected
    assert len(numbers) == len(truth.tracks(1)) + len(truth.tracks(2))


def test_videos_are_set_aside_for_validation(tmp_path, drawn):
    out = tmp_path / 'data'
    assert convert(drawn / 'valid.json', '--out', out, '--valid-share', 0.3) == 0
    (train, first), (valid, second) = opened(out, 'train'), opened(out)
    assert [video.name for video in train.videos] == ['scene_000003', 'scene_000004']
    assert [video.name for video in valid.videos] == ['scene_000005']
    assert train.is_drawn and valid.is_drawn and train.categories == valid.categories
    assert first.videos[0].fps == second.videos[0].fps == 10
    whole = load_ytvis(drawn / 'valid.json')
    count = sum(len(part.tracks(v.video_id)) for part in (first, second) for v in part.videos)
    assert count == sum(len(whole.tracks(video.video_id)) for video in whole.videos)
    name = train.videos[0].frame_names[3]
    copy = (out / 'JPEGImages' / name).read_bytes()
    assert copy == (drawn / 'valid/JPEGImages' / name).read_bytes()


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), codec, 20.0, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def greys(values: list[int]) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), value, np.uint8) for value in values]


def test_the_frames_of_cvat_come_from_the_video_file(tmp_path, content):
    """A task of every second frame from frame 4 on."""
    truth = one_video(content)
    labels = tmp_path / 'annotations.xml'
    labels.write_text(cvat_xml(truth, truth['videos'][0], start=4, step=2))
    clip = write_video(tmp_path / 'clip.avi', greys(list(range(0, 240, 10))))
    out = tmp_path / 'data'
    assert convert(labels, '--frames', clip, '--out', out) == 0
    (video,) = opened(out)[0].videos
    shades = [round(float(frame.image.mean()), -1) for frame in video.frames()]
    assert shades == [40, 60, 80, 100, 120, 140, 160, 180]
    assert video.stamps_ns[1] == 100_000_000
    (tmp_path / 'one.json').write_text(json.dumps(truth))
    assert_masks(out, tmp_path / 'one.json')


def test_images_of_cvat_are_found_by_number_or_in_order(tmp_path, capsys, drawn, content):
    truth = one_video(content)
    root = tmp_path / 'export'
    write_pngs(images(drawn, truth['videos'][0]), root / 'images')
    (root / 'annotations.xml').write_text(cvat_xml(truth, truth['videos'][0]))
    assert convert(root, '--out', tmp_path / 'a') == 0
    own = drawn / 'valid/JPEGImages/scene_000003'
    assert convert(root / 'annotations.xml', '--frames', own, '--out', tmp_path / 'b') == 0
    labels = root / 'instances_default.json'
    labels.write_text(json.dumps(cvat_coco(content, truth['videos'][0])))
    assert convert(labels, '--frames', own, '--out', tmp_path / 'c') == 0
    frames = [[f.image for f in opened(tmp_path / k)[0].videos[0].frames()] for k in 'abc']
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[0], frames[2])
    (tmp_path / 'few').mkdir()
    (tmp_path / 'few/1.jpg').touch()
    text = fails(capsys, tmp_path / 'd', labels, '--frames', tmp_path / 'few')
    assert 'Expected 8 images in' in text and 'such as frame_000000.jpg, got 1' in text


def test_files_of_labelme_become_a_data_set(tmp_path):
    for number in range(3):
        name = tmp_path / f'labels/left/{number}'
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(greys([50 * number])[0]).save(name.with_suffix('.png'))
        points = [[number, 0], [number + 9, 0], [number + 9, 9], [number, 9]]
        shape = {'label': 'fork', 'points': points, 'group_id': 4, 'shape_type': 'polygon'}
        shapes = [shape] if number != 1 else []
        size = {'imageHeight': SIZE[0], 'imageWidth': SIZE[1], 'imagePath': f'{number}.png'}
        name.with_suffix('.json').write_text(json.dumps({'shapes': shapes, **size}))
    assert convert(tmp_path / 'labels', '--out', tmp_path / 'data') == 0
    dataset, truth = opened(tmp_path / 'data')
    assert [category.name for category in dataset.categories] == ['fork']
    (track,) = truth.tracks(1)
    assert list(track.areas) == [81, None, 81]
    assert dataset.videos[0].frame_names[2] == 'left/00002.png'


def test_single_images_stay_single(tmp_path):
    image = {'id': 7, 'file_name': 'a.png', 'height': SIZE[0], 'width': SIZE[1]}
    shape = {'segmentation': [[0, 0, 9, 0, 9, 9]], 'area': 45, 'iscrowd': 0}
    annotation = {'id': 1, 'image_id': 7, 'category_id': 1, **shape}
    content = {'images': [image], 'annotations': [annotation]}
    Image.fromarray(greys([9])[0]).save(tmp_path / 'a.png')
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps({**content, 'categories': [{'id': 1, 'name': 'dog'}]}))
    assert convert(path, '--out', tmp_path / 'data') == 0
    assert [len(video.frame_names) for video in opened(tmp_path / 'data')[0].videos] == [1]


def fails(capsys, out: Path, *words: object) -> str:
    """Run with an error: one line, and nothing is left beside `out`."""
    before = sorted(out.parent.iterdir()) if out.parent.exists() else []
    capsys.readouterr()
    assert convert(*words, '--out', out) == 1
    text = capsys.readouterr().err
    assert text.startswith('videomt convert: ') and text.count('\n') == 1
    assert (sorted(out.parent.iterdir()) if out.parent.exists() else []) == before
    return text


def test_a_zip_may_hold_a_folder_around_all(tmp_path, drawn):
    shutil.copytree(drawn, tmp_path / 'a/my data')
    (tmp_path / 'a/__MACOSX').mkdir()
    archive = Path(shutil.make_archive(str(tmp_path / 'labels'), 'zip', tmp_path / 'a'))
    assert convert(archive, '--out', tmp_path / 'data') == 0
    assert len(opened(tmp_path / 'data')[0].videos) == 3


@pytest.mark.parametrize(
    'content', [[{'data': {}, 'annotations': []}], {'a.jpg': {'regions': []}}]
)
def test_a_json_of_another_tool_is_told_what_is_read(tmp_path, capsys, content):
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    text = fails(capsys, tmp_path / 'data', tmp_path / 'labels.json')
    assert 'labels.json: Expected labels in a format that is read: YouTube-VIS' in text


def test_a_zip_that_is_none_is_named(tmp_path, capsys):
    (tmp_path / 'labels.zip').write_bytes(b'PK')
    text = fails(capsys, tmp_path / 'data', tmp_path / 'labels.zip')
    assert 'labels.zip: Expected a sound zip file' in text


@pytest.mark.parametrize('family', ['vipseg', 'vspw'])
def test_panoptic_and_semantic_labels_are_not_converted(tmp_path, capsys, family):
    write_dataset(family, tmp_path / 'in', 1, 2, size=SIZE, stuff=True)
    text = fails(capsys, tmp_path / 'data', tmp_path / 'in')
    words = {'vipseg': 'got panoptic ones', 'vspw': 'Expected labels in a format that is read'}
    assert words[family] in text


def test_what_is_wrong_is_said_and_leaves_nothing(tmp_path, capsys, drawn, content):
    out = tmp_path / 'data'
    assert 'there is no such file' in fails(capsys, out, tmp_path / 'none')
    fails(capsys, tmp_path / 'not/yet/there', tmp_path / 'none')
    assert not (tmp_path / 'not').exists()
    (tmp_path / 'empty').mkdir()
    assert 'Expected labels in a format that is read: Y' in fails(capsys, out, tmp_path / 'empty')
    (tmp_path / 'exports').mkdir()
    (tmp_path / 'exports/task_1.zip').touch()
    text = fails(capsys, out, tmp_path / 'exports')
    assert 'got a folder of zip files' in text and 'exports/task_1.zip.' in text
    (tmp_path / 'a.zip').write_bytes(b'PK\x03\x04 cut off')
    fails(capsys, out, tmp_path / 'a.zip')
    (tmp_path / 'a.json').write_text('{"images": [')
    assert 'Is the file complete' in fails(capsys, out, tmp_path / 'a.json')
    (tmp_path / 'b.json').write_text('[]')
    fails(capsys, out, tmp_path / 'b.json')
    text = fails(capsys, out, drawn, '--frames', tmp_path / 'none')
    assert 'Expected a folder of images or a video; there is none' in text
    text = fails(capsys, out, drawn, '--frames', tmp_path / 'a.json')
    assert 'Expected the labels of one video for a video file, got 3 videos' in text
    text = fails(capsys, out, drawn, '--frames', tmp_path / 'empty')
    assert 'None of its 24 images was found' in text and '--frames' in text

    one = tmp_path / 'one.json'
    one.write_text(json.dumps(one_video(content)))
    assert 'Expected two videos or more' in fails(capsys, out, one, '--frames', drawn / 'valid',
                                                  '--valid-share', 0.5)  # fmt: skip
    clip = write_video(tmp_path / 'clip.avi', greys([1, 2, 3]))
    assert 'Expected 8 frames, as the labels have, got 3' in fails(
        capsys, out, one, '--frames', clip
    )
    root = tmp_path / 'damaged'
    shutil.copytree(drawn, root)
    frame = root / 'valid/JPEGImages' / content['videos'][1]['file_names'][5]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(frame)
    assert 'Expected 96 x 64 pixels' in fails(capsys, out, root)
    frame.write_bytes(b'')
    assert str(frame) in fails(capsys, out, root)
    (root / 'train.json').write_text('{"videos": []}')
    text = fails(capsys, out, root)
    assert 'Expected one annotation file, got train.json, valid.json. Name one' in text
    (root / 'labels.zip').touch()
    with zipfile.ZipFile(root / 'labels.zip', 'w') as archive:
        archive.writestr('a.json', '{"videos": []}')
        archive.writestr('b.json', '{"videos": []}')
    assert 'Unpack it and name one' in fails(capsys, out, root / 'labels.zip')
    with zipfile.ZipFile(root / 'labels.zip', 'w') as archive:
        archive.writestr('annotations/a.json', json.dumps(one_video(content)))
    text = fails(capsys, out, root / 'labels.zip')
    assert str(root / 'labels.zip/annotations/a.json') in text and '.data.' not in text


def test_nothing_is_overwritten(tmp_path, capsys, drawn):
    out = tmp_path / 'data'
    out.mkdir()
    assert convert(drawn, '--out', out) == 0  # an empty folder may be there
    text = fails(capsys, out, drawn)
    assert 'Expected a new or empty folder' in text


def test_videos_with_missing_frames_are_left_out_on_request(tmp_path, capsys, drawn, content):
    root, out = tmp_path / 'damaged', tmp_path / 'data'
    shutil.copytree(drawn, root)
    (root / 'valid/JPEGImages' / content['videos'][1]['file_names'][5]).unlink()
    assert 'images are missing' in fails(capsys, out, root)
    assert convert(root, '--out', out, '--skip-bad') == 0
    assert '1 bad record was left out' in capsys.readouterr().err
    (line,) = (out / 'left_out.txt').read_text().splitlines()
    assert content['videos'][1]['file_names'][5] in line
    assert len(opened(out)[0].videos) == 2


@pytest.mark.parametrize('share', ['0', '1', 'x', '-0.1', 'nan'])
def test_a_share_is_between_0_and_1(tmp_path, share):
    with pytest.raises(SystemExit) as caught:
        convert(tmp_path, '--out', tmp_path / 'data', f'--valid-share={share}')
    assert caught.value.code == 2


def test_labels_of_turned_photos_are_told_from_those_of_another_image(
    drawn, content, tmp_path, capsys
):
    shutil.copytree(drawn, tmp_path / 'in')
    (photo, *_) = images(tmp_path / 'in', content['videos'][0])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new('RGB', SIZE).save(photo, exif=exif)
    assert convert(tmp_path / 'in/valid.json', '--out', tmp_path / 'out') == 1
    said = capsys.readouterr().err
    assert 'got 64 x 96. Its EXIF orientation (6) is ignored' in said
    assert not (tmp_path / 'out').exists()
