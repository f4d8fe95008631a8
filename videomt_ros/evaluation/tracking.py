"""Frame by frame: how well the tracks of a stream cover the true objects, and stay on them.

Identity switches are those of MOTA: Bernardin and Stiefelhagen, Evaluating Multiple Object
Tracking Performance: The CLEAR MOT Metrics, EURASIP Journal on Image and Video Processing 2008.

Letters: H W image size in pixels, N true objects, M tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

VISIBLE_SHARE = 0.002
"""A true object counts in the frames in which it has at least this share of the pixels."""
FOUND_IOU = 0.5
"""A true object is found in a frame if a track matches it with at least this IoU."""


@dataclass(frozen=True)
class TrackScores:
    """Result of `TrackQuality`. A share of nothing is nan."""

    num_frames: int
    num_visible: int
    """True objects visible, summed over the frames: what the shares are shares of."""
    num_found: int
    """Of these, matched by a track with an IoU of at least `FOUND_IOU`."""
    num_switches: int
    mean_iou: float
    """IoU with the matched track, 0 where there is none, mean over the visible objects."""
    found: float
    """num_found / num_visible."""
    classes_right: float
    """Share of the found objects whose track has the true class."""

    @property
    def switches_per_100_frames(self) -> float:
        """Identity switches in the whole image, per 100 frames of video."""
        return 100 * self.num_switches / self.num_frames if self.num_frames else float('nan')


class TrackQuality:
    """Compares id images with the truth, frame by frame.

    In each frame true objects and tracks are matched one to one, so that as many objects as
    possible are found, and the sum of their IoU is largest. A switch is counted where a found
    object's track id differs from that of the frame in which it was last found.

    >>> quality = TrackQuality()
    >>> true_ids = np.array([[1, 1, 1, 0]], np.uint16)
    >>> quality.update(true_ids, np.array([[7, 7, 0, 0]], np.uint16))  # IoU 2/3
    >>> quality.update(true_ids, np.array([[8, 8, 8, 0]], np.uint16))  # IoU 1, and a new id
    >>> scores = quality.result()
    >>> round(scores.mean_iou, 3), scores.found, scores.switches_per_100_frames
    (0.833, 1.0, 50.0)
    """

    def __init__(self) -> None:
        self._last_track: dict[int, int] = {}
        self._num_frames = self._num_visible = self._num_found = self._num_switches = 0
        self._num_with_class = self._num_class_right = 0
        self._sum_iou = 0.0

    def start_video(self) -> None:
        """Forget identities: true ids and track ids of the next frame belong to another video."""
        self._last_track.clear()

    def update(
        self,
        true_ids: NDArray[np.uint16],
        track_ids: NDArray[np.uint16],
        true_classes: Mapping[int, int] | None = None,
        track_classes: Mapping[int, int] | None = None,
    ) -> None:
        """Add one frame.

        Args:
            true_ids: (H, W), identity of each pixel's object, 0 background.
            track_ids: (H, W), track of each pixel, 0 nothing.
            true_classes: class id of each true identity; without it classes are not scored.
            track_classes: class id of each track.

        Raises:
            ValueError: the two images differ in size.
        """
        if true_ids.shape != track_ids.shape or true_ids.ndim != 2:
            raise ValueError(
                'Expected true ids and track ids of one shape (H, W), '
                f'got {true_ids.shape} and {track_ids.shape}.'
            )
        identities, tracks, iou = _iou_table(true_ids, track_ids)
        self._num_frames += 1
        self._num_visible += len(identities)
        if not iou.size:
            return
        # Finding comes first: the plain sum of IoU may prefer two poor pairs to a good one.
        # Both images are partitions, so a pair above 0.5 has no rival; at 0.5 itself two halves
        # of an object tie, and the track it had goes on, as in CLEAR MOT.
        last = np.array([self._last_track.get(identity, 0) for identity in identities])
        goes_on = last[:, None] == np.array(tracks)
        is_find = iou >= FOUND_IOU
        weight = iou + is_find * (len(identities) + 1.0 + 1e-6 * goes_on)
        for row, column in zip(*linear_sum_assignment(weight, maximize=True), strict=True):
            self._sum_iou += float(iou[row, column])
            if is_find[row, column]:
                self._find(identities[row], tracks[column], true_classes, track_classes or {})

    def result(self) -> TrackScores:
        """Scores over all frames so far."""
        return TrackScores(
            num_frames=self._num_frames,
            num_visible=self._num_visible,
            num_found=self._num_found,
            num_switches=self._num_switches,
            mean_iou=_share(self._sum_iou, self._num_visible),
            found=_share(self._num_found, self._num_visible),
            classes_right=_share(self._num_class_right, self._num_with_class),
        )

    def _find(
        self,
        identity: int,
        track: int,
        true_classes: Mapping[int, int] | None,
        track_classes: Mapping[int, int],
    ) -> None:
        self._num_found += 1
        self._num_switches += self._last_track.get(identity, track) != track
        self._last_track[identity] = track
        if true_classes is not None:
            self._num_with_class += 1
            self._num_class_right += true_classes[identity] == track_classes.get(track)


def _iou_table(
    true_ids: NDArray[np.uint16], track_ids: NDArray[np.uint16]
) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Identities that are visible, tracks, and their IoU (N, M)."""
    identities, true_index = _compact(true_ids)
    tracks, track_index = _compact(track_ids)
    shared = np.bincount(
        true_index * len(tracks) + track_index, minlength=len(identities) * len(tracks)
    ).reshape(len(identities), len(tracks))
    true_areas, track_areas = shared.sum(axis=1), shared.sum(axis=0)
    union = true_areas[:, None] + track_areas - shared
    rows = (identities > 0) & (true_areas >= VISIBLE_SHARE * true_ids.size)
    columns = tracks > 0
    iou = (shared / union)[rows][:, columns]
    return identities[rows].tolist(), tracks[columns].tolist(), iou


def _compact(ids: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values in an image, ascending, and the index of each pixel's value among them."""
    flat = ids.reshape(-1)
    values = np.flatnonzero(np.bincount(flat))
    index_of = np.zeros(values[-1] + 1, np.int64)
    index_of[values] = np.arange(len(values))
    return values, index_of[flat]


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float('nan')
