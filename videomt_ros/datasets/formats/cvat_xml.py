"""The export "CVAT for video 1.1": an XML file of tracks with a shape for each frame.

CVAT writes every frame in which a track is visible, also those between its key frames, and one
with `outside` where it vanishes. Frames are numbers of the source video, of which a task may take
every n-th; images in the export have these numbers in their names. See docs.cvat.ai, "XML
annotation format".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.frame_tracks import FrameTracks
from videomt_ros.datasets.formats.instance_files import YtvisTruth, YtvisVideo
from videomt_ros.datasets.formats.record_checks import Checks, counted
from videomt_ros.datasets.json_files import shown
from videomt_ros.datasets.rle import encode

_SHAPES = ('polygon', 'mask', 'box', 'ellipse', 'polyline', 'points', 'cuboid', 'skeleton')
"""Shapes of a track; the first two are masks."""


def load_cvat_xml(path: Path, *, skip_bad: bool = False) -> YtvisTruth:
    """Read the file; `frame_names` of its video are those of CVAT, 'frame_000012' without suffix.

    Args:
        path: the file, usually 'annotations.xml'.
        skip_bad: leave out shapes with faults, and list them in `left_out`.

    Raises:
        DatasetError: lists every fault with its track and frame.
    """
    checks = Checks(path, skip_bad)
    root = _parse(path)
    task = _find_task(root, path)
    numbers = _frame_numbers(root, task, path)
    video = _video(root, task, numbers, path)
    frames = {number: index for index, number in enumerate(numbers)}
    labels = [label.findtext('name') or '' for label in task.iterfind('labels/label')]
    if not labels:  # of a project, whose tasks share them
        labels = [label.findtext('name') or '' for label in root.iterfind('meta//labels/label')]
    labels += [track.get('label', '') for track in root.iterfind('track')]
    categories = {
        name: Category(number, name)
        for number, name in enumerate(dict.fromkeys(filter(None, labels)), start=1)
    }
    joined = FrameTracks({video.video_id: video}, checks, 'Track')
    for number, track in enumerate(root.iterfind('track')):
        _read_track(track, number, video, frames, categories, joined, checks)
    tracks = joined.tracks()
    checks.finish()
    counts = counted(len(numbers), 'frame'), counted(len(tracks), 'track')
    checks.note(f'read as CVAT for video: {", ".join(counts)}')
    return YtvisTruth(
        path,
        categories.values(),
        [video],
        tracks,
        notes=checks.notes,
        left_out=checks.left_out,
    )


def _parse(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DatasetError(path, [f'Expected an XML file, got: {error.strerror}.']) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DatasetError(path, [f'Expected XML, but {error}. Is the file complete?']) from error
    if root.tag != 'annotations':
        raise DatasetError(path, [f'Expected annotations of CVAT, got <{root.tag}>.'])
    if root.find('track') is None:
        what = 'images' if root.find('image') is not None else 'nothing'
        raise DatasetError(
            path,
            [
                f'Expected tracks, got {what}. Export the task as "CVAT for video 1.1" or "COCO '
                '1.0", which keep the tracks.'
            ],
        )
    return root


def _find_task(root: ElementTree.Element, path: Path) -> ElementTree.Element:
    """Find what the file says of its task, or of its job."""
    tasks = [*root.iterfind('meta/project/tasks/task'), *root.iterfind('meta/task')]
    tasks += list(root.iterfind('meta/job'))
    if len(tasks) != 1:
        raise DatasetError(
            path,
            [
                f'Expected one task, got {len(tasks)}. Export each task of a project by itself: '
                'together, the frames of their videos are numbered as if they were one.'
            ],
        )
    return tasks[0]


def _frame_numbers(root: ElementTree.Element, task: ElementTree.Element, path: Path) -> list[int]:
    """List the numbers of the frames in the source video."""
    values = {
        name: task.findtext(name) or default
        for name, default in (('size', ''), ('start_frame', '0'), ('stop_frame', ''))
    }
    step = re.search(r'step\s*=\s*(\d+)', task.findtext('frame_filter') or '')
    stride = int(step[1]) if step else 1
    if not all(value.isdecimal() for value in values.values() if value) or stride < 1:
        raise DatasetError(path, [f'Expected whole numbers for the frames, got {values}.'])
    start = int(values['start_frame'])
    if values['stop_frame']:
        stop = int(values['stop_frame'])
    elif values['size']:
        stop = start + (int(values['size']) - 1) * stride
    else:
        raise DatasetError(path, ['Expected the size of the task, the number of its frames.'])
    numbers = list(range(start, stop + 1, stride))
    if not 0 < len(numbers) < 10**7:
        raise DatasetError(
            path, [f'Expected a range of frames, got start {start} and stop {stop}.']
        )
    return numbers


def _video(
    root: ElementTree.Element, task: ElementTree.Element, numbers: list[int], path: Path
) -> YtvisVideo:
    # The export of a job has the size beside it rather than in it.
    sizes = task.find('original_size'), root.find('meta/original_size')
    home = next((each for each in sizes if each is not None), task)
    size = [home.findtext(side) or '' for side in ('height', 'width')]
    if not all(side.isdecimal() and 0 < int(side) < 2**16 for side in size):
        raise DatasetError(
            path,
            [
                f'Expected original_size, the size of the images, got {shown(size)}. CVAT writes '
                'it for tasks of a video; export a task of images as "COCO 1.0".'
            ],
        )
    height, width = map(int, size)
    name = task.findtext('source') or task.findtext('name') or ''
    names = tuple(f'frame_{number:06d}' for number in numbers)
    return YtvisVideo(1, Path(name).stem, (height, width), names)


def _read_track(
    track: ElementTree.Element,
    number: int,
    video: YtvisVideo,
    frames: dict[int, int],
    categories: dict[str, Category],
    joined: FrameTracks,
    checks: Checks,
) -> None:
    own = track.get('id', str(number))
    identity = int(own) if own.lstrip('-').isdecimal() else own
    category = categories.get(track.get('label', ''))
    shapes = [shape for shape in track if shape.tag in _SHAPES]
    last = -1
    for shape in checks.each(shapes):
        frame_text = shape.get('frame', '')
        where = f'Track {own}, frame {frame_text or "?"}'
        frame = frames.get(int(frame_text)) if frame_text.isdecimal() else None
        if frame is not None:
            if 0 <= last < frame - 1:
                checks.count('gap', 'of tracks without `outside` before it, taken as it')
            last = frame
        if shape.get('outside') == '1':
            last = -1
            continue
        if frame is None:
            checks.fault(
                f'{where}: expected one of the frames {min(frames)} to {max(frames)} of the task.'
            )
        elif category is None:
            checks.fault(f'{where}: its track has no label.')
        elif shape.tag not in _SHAPES[:2]:
            checks.fault(
                f'{where}: expected a polygon or a mask, got a {shape.tag} ({category.name}), '
                'which says nothing of the pixels.'
            )
        else:
            record = {'segmentation': _segmentation(shape, video.size, where, checks)}
            if checks.keeps and record['segmentation'] is not None:
                segmentation = checks.segmentation(record, where, video.size)
                if checks.keeps:
                    joined.add(1, frame, identity, category.category_id, segmentation)


def _segmentation(
    shape: ElementTree.Element, size: tuple[int, int], where: str, checks: Checks
) -> Any:
    """Read a polygon, or a mask of pixels, in a form that COCO has."""
    if shape.tag == 'polygon':
        text = shape.get('points', '')
        try:
            return [[float(value) for point in text.split(';') for value in _pair(point)]]
        except ValueError:
            checks.fault(f'{where}: expected points as x,y;x,y;..., got {shown(text)}.')
            return None
    try:
        left, top, width, height = (
            int(shape.get(k, '')) for k in ('left', 'top', 'width', 'height')
        )
        runs = np.array([int(run) for run in shape.get('rle', '').split(',')], np.int64)
    except ValueError:
        checks.fault(f'{where}: expected a mask of rle, left, top, width and height.')
        return None
    inside = 0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]
    if not inside or runs.min() < 0 or runs.sum() != width * height:
        checks.fault(
            f'{where}: expected a mask within {size[1]} x {size[0]} pixels, got runs of '
            f'{runs.sum()} pixels for {width} x {height} at {left}, {top}.'
        )
        return None
    # Row by row within the box, other than COCO's, which go down the columns of the image.
    mask = np.zeros(size, bool)
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = part
    return encode(mask)


def _pair(point: str) -> list[str]:
    values = point.split(',')
    if len(values) != 2:
        raise ValueError(point)
    return values
