"""The files of labelme: one JSON of shapes beside each image.

labelme knows no videos. A folder of images is read as one, in the order of their names, and shapes
with one label and one `group_id` show the same object. An image without a JSON shows none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from videomt_ros.datasets.compressed import decode_image_file
from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.frame_tracks import FrameTracks
from videomt_ros.datasets.formats.instance_files import YtvisTruth, YtvisVideo, with_names
from videomt_ros.datasets.formats.record_checks import Checks, counted
from videomt_ros.datasets.image_folder import find_files, natural_key
from videomt_ros.datasets.images import FrameError
from videomt_ros.datasets.json_files import as_whole, load_json, shown
from videomt_ros.datasets.rle import encode


def is_labelme(content: Any) -> bool:
    """Tell whether a JSON is one of labelme."""
    return (
        isinstance(content, dict)
        and isinstance(content.get('shapes'), list)
        and ('imagePath' in content or 'imageHeight' in content)
    )


def labelme_folders(root: Path) -> list[Path]:
    """List the folders at and below `root` that hold a JSON of labelme."""
    folders = sorted({path.parent for path in root.rglob('*.json') if path.is_file()})
    return [
        folder
        for folder in folders
        if any(map(_is_readable_labelme, find_files(folder, ('.json',)).values()))
    ]


def _is_readable_labelme(path: Path) -> bool:
    try:
        return is_labelme(load_json(path))
    except DatasetError:
        return False  # told when its folder is read, if another file shows that labelme wrote it


def load_labelme(root: Path, folders: Sequence[Path], *, skip_bad: bool = False) -> YtvisTruth:
    """Read folders of labelme, each as a video; `frame_names` are relative to `root`.

    Args:
        root: folder that all of them are in.
        folders: folders with JSON files, images, or both.
        skip_bad: leave out shapes with faults, and list them in `left_out`.

    Raises:
        DatasetError: lists every fault with its file.
    """
    checks = Checks(root, skip_bad)
    videos: dict[int, YtvisVideo] = {}
    shapes: list[tuple[int, int, str, dict[str, Any]]] = []
    for video_id, folder in enumerate(folders, start=1):
        names, contents = _read_folder(folder, checks)
        size = _size(folder, contents, checks)
        stems = list(names)
        videos[video_id] = YtvisVideo(
            video_id,
            folder.name,
            size,
            tuple((folder / name).relative_to(root).as_posix() for name in names.values()),
        )
        for stem, content in contents.items():
            where = str((folder / f'{stem}.json').relative_to(root))
            shapes += [(video_id, stems.index(stem), where, shape) for shape in content['shapes']]
    labels = {str(shape.get('label')) for *_, shape in shapes if isinstance(shape, dict)}
    categories = {
        name: Category(number, name) for number, name in enumerate(sorted(labels), start=1)
    }
    joined = FrameTracks(videos, checks, 'Object')
    numbers: dict[tuple[str, Any], int] = {}
    words: dict[tuple[int, Any], set[str]] = {}
    for video_id, frame, where, shape in checks.each(shapes):
        if 0 in videos[video_id].size or not _check_shape(shape, where, checks):
            continue
        label, group = shape['label'], as_whole(shape['group_id'])
        record = {'segmentation': _segmentation(shape, videos[video_id].size, where, checks)}
        if record['segmentation'] is None:
            continue
        segmentation = checks.segmentation(record, where, videos[video_id].size)
        if checks.keeps:
            words.setdefault((video_id, group), set()).add(label)
            identity = numbers.setdefault((label, group), len(numbers) + 1)
            category_id = categories[label].category_id
            joined.add(video_id, frame, identity, category_id, segmentation)
    tracks = joined.tracks()
    checks.finish()
    for (video_id, group), names_of_group in words.items():
        if len(names_of_group) > 1:
            checks.note(
                f'group_id {group} of {videos[video_id].name} has the labels '
                f'{", ".join(sorted(names_of_group))}, which are objects of their own'
            )
    count = sum(len(video.frame_names) for video in videos.values())
    counts = counted(len(videos), 'video'), counted(count, 'frame'), counted(len(tracks), 'object')
    checks.note(f'read as labelme: {", ".join(counts)}')
    return YtvisTruth(
        root,
        categories.values(),
        with_names(videos.values()),
        tracks,
        notes=checks.notes,
        left_out=checks.left_out,
    )


def _read_folder(folder: Path, checks: Checks) -> tuple[dict[str, str], dict[str, Any]]:
    """Read the names of the images and the content of the JSON files, both by stem."""
    contents: dict[str, Any] = {}
    files = find_files(folder, ('.json',))
    for stem in checks.each(sorted(files, key=natural_key)):
        path = files[stem]
        try:
            content = load_json(path)
        except DatasetError as error:
            checks.fault(f'{folder.name}/{path.name}: {" ".join(error.faults)}')
            continue
        if is_labelme(content):
            contents[stem] = content
        else:
            where = f'{folder.name}/{path.name}'
            checks.fault(f'{where}: expected a JSON of labelme with shapes and imagePath.')
    names = {stem: path.name for stem, path in find_files(folder).items()}
    if not names:  # images that lie elsewhere, by the names that labelme kept of them
        for stem, content in contents.items():
            # The files of a Windows machine have backslashes.
            image = PureWindowsPath(str(content.get('imagePath') or f'{stem}.jpg'))
            names[stem] = f'{stem}{image.suffix}'
    for stem in checks.each([stem for stem in contents if stem not in names]):
        checks.fault(f'{folder.name}/{stem}.json: there is no image of this name beside it.')
        del contents[stem]
    return {stem: names[stem] for stem in sorted(names, key=natural_key)}, contents


def _size(folder: Path, contents: dict[str, Any], checks: Checks) -> tuple[int, int]:
    """Check that all images of a folder have one size, and return it as (height, width)."""
    sizes: dict[tuple[int, int], str] = {}
    for stem, content in contents.items():
        record = {'height': content.get('imageHeight'), 'width': content.get('imageWidth')}
        size = checks.size(record, f'{folder.name}/{stem}.json')
        if 0 not in size:
            sizes.setdefault(size, stem)
    if len(sizes) > 1:
        what = ' and '.join(f'{stem}.json: {w} x {h}' for (h, w), stem in sizes.items())
        checks.fault(f'{folder.name}: expected images of one size, got {what}.')
    return next(iter(sizes), (0, 0))


def _check_shape(shape: Any, where: str, checks: Checks) -> bool:
    """Check that a shape belongs to an object."""
    if not isinstance(shape, dict):
        checks.fault(f'{where}: expected shapes as objects, got {shown(shape)}.')
        return False
    label = checks.text(shape, 'label', where)
    group = as_whole(shape.get('group_id'))
    if type(group) is not int:
        checks.fault(
            f'{where}: expected a group_id for each shape, a number that tells which shapes of '
            f'the video show the same object; got {shown(group)} for {shown(label)}.'
        )
    elif label:
        return True
    return False


def _segmentation(shape: dict[str, Any], size: tuple[int, int], where: str, checks: Checks) -> Any:
    """Read a polygon, or a mask of pixels, in a form that COCO has."""
    kind, points = shape.get('shape_type', 'polygon'), shape.get('points')
    try:
        pairs = [(float(x), float(y)) for x, y in points]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        checks.fault(f'{where}: expected points as [[x, y], ...], got {shown(points)}.')
        return None
    if kind == 'polygon':
        return [[value for pair in pairs for value in pair]]
    if kind != 'mask' or not isinstance(shape.get('mask'), str) or not pairs:
        checks.fault(
            f'{where}: expected polygons or masks, got {shape["label"]} as {kind}, which says '
            'nothing of the pixels.'
        )
        return None
    try:
        part = decode_image_file(base64.b64decode(shape['mask'], validate=True))[..., 0] > 0
    except (binascii.Error, FrameError) as error:
        checks.fault(f'{where}: expected the mask of {shape["label"]} as a PNG, but {error}.')
        return None
    left, top = (round(value) for value in pairs[0])
    height, width = part.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        checks.fault(f'{where}: the mask of {shape["label"]} reaches beyond the image.')
        return None
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = part
    return encode(mask)
