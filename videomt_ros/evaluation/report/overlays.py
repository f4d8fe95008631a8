"""Pictures of a report: some frames of a video with their truth and with the prediction.

A track has the number and the colour of the true object that it overlaps most along the video, and
so the same colour on both sides means the same object; a track without an object has a number of
its own. The numbers hold for one video.

Letters: H W image size in pixels, N objects, M tracks.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.datasets.dataset import Video
from videomt_ros.errors import fault_line
from videomt_ros.evaluation.families.family import Label, Labels
from videomt_ros.inference.draw import draw
from videomt_ros.structures import Segment, Segments, TrackState

_WIDTH = 480
"""Largest width of a picture in pixels; smaller images keep their size."""
_QUALITY = 78
"""Quality of the JPEGs, 0..100."""
_SAMPLES = 12
"""Number of frames by which tracks and objects are paired; reading all frames of a long video
would take too long."""


@dataclass(frozen=True)
class Picture:
    """One frame of the report."""

    index: int
    """Number of the frame in the video, from 0."""
    predicted: bytes | None = None
    """JPEG with the predicted tracks; None if there is a problem."""
    truth: bytes | None = None
    """JPEG with the true objects; None if the truth is unknown."""
    problem: str = ''
    """Reason why there is no picture; empty if there is one."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of a video, and the numbers of objects and tracks in them."""

    pictures: list[Picture]
    objects: dict[int, int] = field(default_factory=dict)
    """Number of each true object in the pictures, by its id in `ScoreReport.switches`."""
    tracks: dict[int, int] = field(default_factory=dict)
    """Number of each track in the pictures, by its id in `ScoreReport.switches`."""


def make_pictures(
    video: Video,
    frames: Iterable[int],
    truth: Labels | None,
    predicted: Labels,
    marked: Mapping[int, Sequence[int]],
) -> Pictures:
    """Draw frames of a video.

    Args:
        video: a video, whose images are read up to the last of the frames.
        frames: indices of annotated frames.
        truth: labels of the true objects; None if they are unknown.
        predicted: labels of the predicted tracks.
        marked: ids of true objects by frame, as `ScoreReport.switches` has them; their places in
            the prediction are outlined.

    Returns:
        A picture for each frame, in rising order. A frame that cannot be read or drawn has none,
        and says why; nor have the frames after it, if the video cannot be read on.
    """
    wanted = sorted(set(frames))
    try:
        numbers = _number(video, wanted, truth, predicted)
    except Exception as error:
        return Pictures([Picture(index, problem=fault_line(error)) for index in wanted])
    images, problem = _images(video, wanted)
    pictures = []
    for index in wanted:
        if index not in images:
            pictures.append(Picture(index, problem=problem))
            continue
        try:
            pictures.append(
                _picture(video, index, images[index], truth, predicted, numbers, marked)
            )
        except Exception as error:
            pictures.append(Picture(index, problem=fault_line(error)))
    return Pictures(pictures, numbers.of_objects, numbers.of_tracks)


class _Numbers(NamedTuple):
    """Numbers of the objects and the tracks of a video in its pictures."""

    objects: dict[int, int]
    """By key."""
    tracks: dict[int, int]
    """By key."""
    of_objects: dict[int, int]
    """By the id that scores have."""
    of_tracks: dict[int, int]
    """By the id that scores have."""


def _picture(
    video: Video,
    index: int,
    image: NDArray[np.uint8],
    truth: Labels | None,
    predicted: Labels,
    numbers: _Numbers,
    marked: Mapping[int, Sequence[int]],
) -> Picture:
    """Draw one frame; see `make_pictures`."""
    keys, labels = predicted.frame(video, index)
    view = _overlay(image, keys, labels, numbers.tracks)
    if truth is None:
        return Picture(index, _jpeg(view))
    keys, labels = truth.frame(video, index)
    true_view = _overlay(image, keys, labels, numbers.objects)
    for label in labels:
        if label.object_id in marked.get(index, ()):
            _outline(view, _resized(keys == label.key, view))
    return Picture(index, _jpeg(view), _jpeg(true_view))


def _number(
    video: Video, wanted: Sequence[int], truth: Labels | None, predicted: Labels
) -> _Numbers:
    """Number the objects and the tracks.

    They are paired so that the sum of their IoU is largest; a pair has one number.
    """
    num_frames = len(video.frame_names)
    even = np.linspace(0, num_frames - 1, min(_SAMPLES, num_frames)).round().astype(int)
    shared: Counter[tuple[int, int]] = Counter()  # pixels of each (object, track); 0 is none
    object_ids: dict[int, int] = {}
    track_ids: dict[int, int] = {}
    for index in sorted({*even.tolist(), *wanted}):
        tracks, labels = predicted.frame(video, index)
        track_ids |= {label.key: label.object_id for label in labels}
        objects = np.zeros_like(tracks)
        if truth is not None:
            objects, labels = truth.frame(video, index)
            object_ids |= {label.key: label.object_id for label in labels}
        step = max(1, tracks.shape[1] // _WIDTH)  # not all pixels are needed
        both = objects[::step, ::step] << 32 | tracks[::step, ::step]
        pairs, counts = np.unique(both, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            shared[pair >> 32, pair & 0xFFFFFFFF] += count
    true_area: Counter[int] = Counter()
    track_area: Counter[int] = Counter()
    for (true_key, track_key), count in shared.items():
        true_area[true_key] += count
        track_area[track_key] += count
    true_keys = sorted(true_area.keys() - {0})
    track_keys = sorted(track_area.keys() - {0})
    iou = np.zeros((len(true_keys), len(track_keys)))
    for n, a in enumerate(true_keys):
        for m, b in enumerate(track_keys):
            iou[n, m] = shared[a, b] / (true_area[a] + track_area[b] - shared[a, b])
    number_of = {
        track_keys[m]: int(n) + 1
        for n, m in zip(*linear_sum_assignment(iou, maximize=True), strict=True)
        if iou[n, m] > 0
    }
    others = itertools.count(len(true_keys) + 1)
    by_object = {key: number for number, key in enumerate(true_keys, start=1)}
    by_track = {key: number_of.get(key) or next(others) for key in track_keys}
    return _Numbers(
        by_object,
        by_track,
        {object_ids.get(key, key): number for key, number in by_object.items()},
        {track_ids.get(key, key): number for key, number in by_track.items()},
    )


def _images(video: Video, wanted: Sequence[int]) -> tuple[dict[int, NDArray[np.uint8]], str]:
    """Read frames at their size on the page.

    Returns:
        Images by frame, and the reason why the others are missing.
    """
    images: dict[int, NDArray[np.uint8]] = {}
    try:
        for frame in video.frames():
            if frame.index is None or frame.index not in wanted:
                continue
            images[frame.index] = _shrink(frame.image)
            if len(images) == len(wanted):
                break
    except Exception as error:
        return images, fault_line(error)
    return images, 'This frame has no image.'


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if width <= _WIDTH:
        return image
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _resized(mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize a mask to the size of a picture; values are 0 or 1."""
    size = (image.shape[1], image.shape[0])
    return cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)


def _overlay(
    image: NDArray[np.uint8],
    keys: NDArray[np.int64],
    labels: Sequence[Label],
    numbers: Mapping[int, int],
) -> NDArray[np.uint8]:
    """Draw objects or tracks with their numbers over an image."""
    ids = np.zeros(image.shape[:2], np.uint16)
    segments = []
    for label in labels:
        mask = _resized(keys == label.key, image)
        area = int(mask.sum())
        if not area:
            continue
        number = numbers[label.key]
        ids[mask > 0] = number
        x, y, width, height = cv2.boundingRect(mask)
        segments.append(
            Segment(
                number,
                class_id=0,
                class_name=label.class_name,
                is_thing=label.is_thing,
                score=1.0 if label.score is None else label.score,
                state=TrackState.CONFIRMED,
                age=1,
                last_seen_ns=0,
                box=(x, y, x + width, y + height),
                area=area,
            )
        )
    segments.sort(key=lambda segment: -segment.score)
    scores = any(label.score is not None for label in labels)
    return draw(image, Segments(0, ids, tuple(segments), num_classes=1), scores=scores)


def _outline(view: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Draw a white box with a black edge around a mask."""
    x, y, width, height = cv2.boundingRect(mask)
    corners = (x - 4, y - 4), (x + width + 4, y + height + 4)
    cv2.rectangle(view, *corners, (0, 0, 0), 5)
    cv2.rectangle(view, *corners, (255, 255, 255), 2)


def _jpeg(view: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(view, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
