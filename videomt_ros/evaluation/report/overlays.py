"""Pictures of a report: some frames of a video with their truth and with the prediction.

A track has the number and the colour of the true object that it overlaps most along the video, and
so the same colour on both sides means the same object; a track without an object has a number of
its own. The numbers hold for one video.

Letters: H W image size in pixels, N objects, M tracks.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.datasets.dataset import Video, VideoFrame
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


class VideoViews:
    """Frames of one video as they are read and numbered once, to be drawn one by one.

    Nothing is raised before a frame is drawn, so that what is wrong with one costs its own picture
    alone.
    """

    def __init__(
        self, video: Video, frames: Iterable[int], truth: Labels | None, predicted: Labels
    ) -> None:
        """Read the frames.

        Args:
            video: a video, whose images are read up to the last of the frames.
            frames: indices of annotated frames.
            truth: labels of the true objects; None if they are unknown.
            predicted: labels of the predicted tracks.
        """
        self._video, self._truth, self._predicted = video, truth, predicted
        self._images: dict[int, VideoFrame] = {}
        wanted = sorted(set(frames))
        self._problem = _read_images(video, wanted, self._images)
        self._numbers = _number(video, wanted, truth, predicted)

    @property
    def objects(self) -> dict[int, int]:
        """Number of each true object, by its id in `ScoreReport.switches`."""
        return self._numbers.of_objects

    @property
    def tracks(self) -> dict[int, int]:
        """Number of each track, by its id in `ScoreReport.switches`."""
        return self._numbers.of_tracks

    def stamp_ns(self, index: int) -> int:
        """Return the stamp of a frame that could be drawn."""
        return self._images[index].stamp_ns

    def draw(
        self, index: int, marked: Collection[int] = ()
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Draw one of the frames.

        Args:
            index: number of the frame.
            marked: ids of true objects whose places are outlined in the prediction.

        Returns:
            The frame with its predicted tracks, (h, w, 3) uint8 RGB, at most 480 wide, and with
            its true objects; None if these are unknown.

        Raises:
            ValueError: the frame has no image; says why.
            Exception: whatever reading its labels raises.
        """
        if index not in self._images:
            raise ValueError(self._problem)
        image = self._images[index].image
        keys, labels = self._predicted.frame(self._video, index)
        view = _overlay(image, keys, labels, self._numbers.tracks)
        if self._truth is None:
            return view, None
        keys, labels = self._truth.frame(self._video, index)
        true_view = _overlay(image, keys, labels, self._numbers.objects)
        for label in labels:
            if label.object_id in marked:
                _outline(view, _resized(keys == label.key, view))
        return view, true_view

    def picture(self, index: int, marked: Collection[int] = ()) -> Picture:
        """Draw one of the frames as JPEGs; one that cannot be read or drawn says why."""
        try:
            view, true_view = self.draw(index, marked)
            return Picture(index, as_jpeg(view), None if true_view is None else as_jpeg(true_view))
        except Exception as error:
            return Picture(index, problem=fault_line(error))


class _Numbers(NamedTuple):
    """Numbers of the objects and the tracks of a video in its pictures."""

    objects: dict[int, int]
    """Numbers of the objects, by key."""
    tracks: dict[int, int]
    """Numbers of the tracks, by key."""
    of_objects: dict[int, int]
    """Numbers of the objects, by the id that scores have."""
    of_tracks: dict[int, int]
    """Numbers of the tracks, by the id that scores have."""


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
        with suppress(Exception):  # such a frame cannot be drawn, which says why
            tracks, labels = predicted.frame(video, index)
            objects, true_labels = np.zeros_like(tracks), list[Label]()
            if truth is not None:
                objects, true_labels = truth.frame(video, index)
            track_ids |= {label.key: label.object_id for label in labels}
            object_ids |= {label.key: label.object_id for label in true_labels}
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
    # With those whose few pixels the coarse grid has missed.
    true_keys, track_keys = sorted(object_ids), sorted(track_ids)
    iou = np.zeros((len(true_keys), len(track_keys)))
    for n, a in enumerate(true_keys):
        for m, b in enumerate(track_keys):
            iou[n, m] = shared[a, b] / max(true_area[a] + track_area[b] - shared[a, b], 1)
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
        {object_ids[key]: number for key, number in by_object.items()},
        {track_ids[key]: number for key, number in by_track.items()},
    )


def _read_images(video: Video, wanted: Sequence[int], images: dict[int, VideoFrame]) -> str:
    """Read frames at their size on the page into a dictionary.

    Returns:
        The reason why the others are missing.
    """
    try:
        for frame in video.frames():
            if frame.index is None or frame.index not in wanted:
                continue
            images[frame.index] = replace(frame, image=_shrink(frame.image))
            if len(images) == len(wanted):
                break
    except Exception as error:
        return fault_line(error)
    return 'This frame has no image.'


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


def as_jpeg(view: NDArray[np.uint8]) -> bytes:
    """Encode a picture (H, W, 3) RGB."""
    bgr = cv2.cvtColor(view, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
