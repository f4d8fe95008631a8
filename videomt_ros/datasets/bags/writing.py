"""Writes the videos of a data set as rosbag2 bags, each with its truth beside it.

For a video NAME, the folder of bags gets

    NAME/                                  the bag: images, and camera_info with the same stamps
    NAME.json                              YTVIS: this video alone, with `stamps_ns`
    NAME.json, panomasksRGB/NAME/*.png     VIPSeg: likewise, with `stamp_ns` in each image
    NAME_vspw/                             VSPW: val.txt, and masks that are named by their stamps

Pixels are those of the image files, JPEG artefacts and all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from videomt_ros.datasets.bags.truth_formats import TRUTH_FORMATS, bag_name
from videomt_ros.datasets.dataset import Dataset, DatasetError, Video

TOPIC = '/camera/image_raw'
FRAME_ID = 'camera'
_FIRST_NS = 1_700_000_000_000_000_000
_APART_NS = 86_400_000_000_000
"""Time between the starts of videos: a day, so that no two of a data set share a stamp."""
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class BagFormat:
    """Storage, encoding and compression of the bags that are written."""

    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    image: Literal['raw', 'jpeg', 'png'] = 'raw'
    """Encoding of the images: raw means Image messages of rgb8, others CompressedImage."""
    zstd: Literal['none', 'file', 'message'] = 'none'


def make_bags(
    dataset: Dataset,
    out: Path,
    form: BagFormat | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> list[Path]:
    """Write every video of a data set as a bag.

    A bag and its truth appear once both are complete; existing files are never touched.

    Args:
        dataset: data set, with or without truth.
        out: folder for the bags.
        form: format of the bags; None: the defaults of `BagFormat`.
        progress: function that is called with the name of each video that was written.

    Returns:
        Paths of the bags.

    Raises:
        ValueError: a bag exists already, two videos would have bags of one name, or the data set
            has single images.
        DatasetError: the data set cannot be read, or an annotated frame has no image.
    """
    if dataset.family not in TRUTH_FORMATS:
        raise ValueError(
            f'Expected videos to make bags of, got the single images of {dataset.name}. '
            'Name a data set of videos.'
        )
    truth = TRUTH_FORMATS[dataset.family]
    names = [bag_name(video) for video in dataset.videos]
    targets = [
        path
        for video, name in zip(dataset.videos, names, strict=True)
        for path in (out / name, *truth.paths(out, video))
    ]
    taken = [path for path in targets if os.path.lexists(path)]
    if taken:
        raise ValueError(
            f'{len(taken)} of the bags to be written exist already, such as {taken[0]}. '
            'Name another folder, or remove them.'
        )
    if len(set(names)) < len(names):
        raise ValueError('Expected videos with different names; some differ in "/" and "_" only.')
    contents = truth.read_contents(dataset)
    out.mkdir(parents=True, exist_ok=True)
    for number, (video, name) in enumerate(zip(dataset.videos, names, strict=True)):
        with TemporaryDirectory(prefix='.make-', dir=out) as folder:
            scratch = Path(folder)
            start_ns = _FIRST_NS + number * _APART_NS
            stamps_ns = _write_bag(video, scratch / name, form or BagFormat(), start_ns)
            if dataset.truth:
                truth.write(dataset, contents, video, stamps_ns, scratch)
            # The truth first, so that every bag that exists has its truth.
            _move_existing([*truth.paths(scratch, video), scratch / name], scratch, out)
        progress(name)
    return [out / name for name in names]


def _move_existing(paths: Iterable[Path], source: Path, target: Path) -> None:
    """Rename those of some paths that exist from one folder into another one."""
    for path in paths:
        if path.exists():
            moved = target / path.relative_to(source)
            moved.parent.mkdir(exist_ok=True)
            os.rename(path, moved)


def _write_bag(video: Video, path: Path, form: BagFormat, start_ns: int) -> list[int]:
    """Write the images of a video as a bag.

    Returns:
        The stamp of each annotated frame.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    topic, kind = TOPIC, 'sensor_msgs/msg/Image'
    if form.image != 'raw':
        topic, kind = f'{TOPIC}/compressed', 'sensor_msgs/msg/CompressedImage'
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[form.storage.upper()])
    writer.set_compression(CompressionMode[form.zstd.upper()], CompressionFormat.ZSTD)
    stamps: dict[int, int] = {}
    first_ns: int | None = None
    with writer:
        images = writer.add_connection(topic, kind, typestore=store)
        info_kind = 'sensor_msgs/msg/CameraInfo'
        infos = writer.add_connection('/camera/camera_info', info_kind, typestore=store)
        for frame in video.frames():
            first_ns = frame.stamp_ns if first_ns is None else first_ns
            stamp_ns = start_ns + frame.stamp_ns - first_ns
            time = store.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
            header = store.types['std_msgs/msg/Header'](time, FRAME_ID)
            message = _image_message(store.types, header, frame.image, form.image)
            writer.write(images, stamp_ns, store.serialize_cdr(message, kind))
            info = _camera_info(store.types, header, frame.image.shape[:2])
            writer.write(infos, stamp_ns, store.serialize_cdr(info, info_kind))
            if frame.index is not None:
                stamps[frame.index] = stamp_ns
    missing = [name for i, name in enumerate(video.frame_names) if i not in stamps]
    if missing:
        faults = [f'Expected an image of the annotated frame {name}.' for name in missing]
        raise DatasetError(Path(video.name), faults)
    return [stamps[index] for index in range(len(video.frame_names))]


def _image_message(
    types: Mapping[str, Any], header: Any, image: NDArray[np.uint8], encoding: str
) -> Any:
    height, width = image.shape[:2]
    if encoding == 'raw':
        data = np.ascontiguousarray(image).reshape(-1)
        kind = types['sensor_msgs/msg/Image']
        return kind(header, height, width, 'rgb8', 0, 3 * width, data)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if encoding == 'jpeg' else []
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(f'.{encoding}', bgr, options)[1].reshape(-1)
    kind = types['sensor_msgs/msg/CompressedImage']
    return kind(header, f'rgb8; {encoding} compressed bgr8', data)


def _camera_info(types: Mapping[str, Any], header: Any, size: tuple[int, ...]) -> Any:
    """Build the CameraInfo of a camera that is not calibrated, whose K is zero."""
    region = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return types['sensor_msgs/msg/CameraInfo'](
        header=header,
        height=size[0],
        width=size[1],
        distortion_model='',
        d=np.zeros(0),
        k=np.zeros(9),
        r=np.zeros(9),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
