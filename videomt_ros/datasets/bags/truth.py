"""The truth of a recording: a benchmark's own annotation files, with stamps.

YTVIS: each video of the JSON has `stamps_ns`, one number per frame. VIPSeg: each image of the JSON
has `stamp_ns`. VSPW, and any other: the frames are named by their stamps in nanoseconds.

An image belongs to the annotated frame whose stamp is nearest, if that is no farther than half
the median period of the truth; of several images of one annotated frame the nearest is its image.
The order of the images does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videomt_ros.datasets.bags.truth_formats import StampedVideo, find_truth_format
from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.image_folder import stamps_of_names


@dataclass(frozen=True)
class TimedVideo:
    """One video of a truth, whose frames have stamps."""

    video_id: int | str
    name: str
    size: tuple[int, int]
    """Size (height, width) in pixels."""
    frame_names: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    """Stamp of each frame, rising."""


@dataclass(frozen=True)
class BagTruth:
    """Labels of a recording: their family, classes and videos, and where they lie."""

    family: str
    path: Path
    categories: tuple[Category, ...]
    videos: tuple[TimedVideo, ...]
    masks: Path | None = None
    """Folder of the true PNGs of VIPSeg."""
    split: str = ''
    """Name of the list of videos, for VSPW."""
    is_drawn: bool = False
    """Whether the files say that the images are drawn."""
    notes: tuple[str, ...] = ()
    """Remarks on the files; see `Dataset.notes`."""
    left_out: tuple[str, ...] = ()
    """Records that were left out; see `Dataset.left_out`."""


@dataclass(frozen=True)
class Match:
    """A video of a truth, matched with the stamps of a recording."""

    video: TimedVideo
    tolerance_ns: int
    numbers: tuple[int | None, ...]
    """Position of each frame's stamp among those of the recording, or None."""

    @property
    def missing(self) -> list[str]:
        """Names of the frames that have no stamp in the recording."""
        names = self.video.frame_names
        return [names[i] for i, number in enumerate(self.numbers) if number is None]


def load_bag_truth(path: Path, skip_bad: bool = False) -> BagTruth:
    """Read annotations, whose family is found from their content.

    Args:
        path: the JSON of YTVIS or of VIPSeg, or the folder of VSPW.
        skip_bad: leave out records with faults.

    Raises:
        DatasetError: the annotations cannot be used, or a video has no stamps.
    """
    truth_format = find_truth_format(path)
    truth = truth_format.load(path, skip_bad)
    videos = _with_stamps(path, truth.videos, truth_format.how_to_add_stamps)
    return BagTruth(
        truth_format.family,
        path,
        truth.categories,
        videos,
        truth_format.masks_folder(path),
        truth_format.split(path),
        truth.is_drawn,
        truth.notes,
        truth.left_out,
    )


def match_video(truth: BagTruth, stamps_ns: Sequence[int], what: str) -> Match:
    """Find the video of the truth whose frames have some of these stamps.

    Args:
        truth: truth of one or more videos.
        stamps_ns: stamps of images or results, in any order.
        what: description of their owners for errors, such as 'images on /camera/image_raw'.

    Raises:
        DatasetError: the stamps match none of its videos, or more than one.
    """
    matches = []
    for video in truth.videos:
        # A single annotated frame has no period; then that of the images is used.
        tolerance_ns = half_period(video.stamps_ns) or half_period(stamps_ns)
        numbers = match_stamps(video.stamps_ns, stamps_ns, tolerance_ns)
        if any(number is not None for number in numbers):
            matches.append(Match(video, tolerance_ns, tuple(numbers)))
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ', '.join(match.video.name for match in matches)
        fault = (
            f'Expected one video whose stamps are those of the {len(stamps_ns)} {what}, got '
            f'{len(matches)}: {names}. Give a file with the right one alone.'
        )
        raise DatasetError(truth.path, [fault])
    spans = '; '.join(f'{video.name}: {_span(video.stamps_ns)}' for video in truth.videos[:5])
    more = f'; and {len(truth.videos) - 5} more' if len(truth.videos) > 5 else ''
    fault = (
        f'No annotated frame has the stamp of one of the {len(stamps_ns)} {what}, which go from '
        f'{_span(stamps_ns)}. The annotated frames go from: {spans}{more}. Is this the '
        'truth of this bag?'
    )
    raise DatasetError(truth.path, [fault])


def match_stamps(
    truth_ns: Sequence[int], stamps_ns: Sequence[int], tolerance_ns: int
) -> list[int | None]:
    """Find the image of each annotated frame.

    Args:
        truth_ns: T stamps of the annotated frames, rising.
        stamps_ns: N stamps of images, in any order.
        tolerance_ns: largest distance that still matches.

    Returns:
        For each annotated frame the number of its image, or None. No image serves two. Where two
        are equally near, the earlier stamp wins, and of equal stamps the first image.

    >>> match_stamps([100, 200, 300], [98, 206, 204, 350], tolerance_ns=50)
    [0, 2, 3]
    """
    matches: list[int | None] = [None] * len(truth_ns)
    if not len(truth_ns) or not len(stamps_ns):
        return matches
    # Whole numbers throughout: nanoseconds since 1970 are more than a float can hold.
    truth = np.asarray(truth_ns, np.int64)
    stamps = np.asarray(stamps_ns, np.int64)
    after = np.clip(np.searchsorted(truth, stamps), 1, max(1, len(truth) - 1))
    after = np.minimum(after, len(truth) - 1)
    before = np.maximum(after - 1, 0)
    is_after = np.abs(truth[after] - stamps) < np.abs(truth[before] - stamps)
    nearest = np.where(is_after, after, before)
    distances = np.abs(truth[nearest] - stamps)
    for number in np.lexsort((stamps, distances)).tolist():
        frame = int(nearest[number])
        if distances[number] <= tolerance_ns and matches[frame] is None:
            matches[frame] = number
    return matches


def half_period(stamps_ns: Sequence[int]) -> int:
    """Return half the median distance of neighbouring stamps in ns; 0 for fewer than two.

    >>> half_period([0, 100, 200, 900])
    50
    """
    if len(stamps_ns) < 2:
        return 0
    return int(np.median(np.diff(np.sort(np.asarray(stamps_ns, np.int64))))) // 2


def _span(stamps_ns: Sequence[int]) -> str:
    """Describe the range of some stamps."""
    if not len(stamps_ns):
        return 'none'
    first, last = min(stamps_ns), max(stamps_ns)
    return f'{_seconds(first)} to {_seconds(last)} s'


def _seconds(stamp_ns: int) -> str:
    return f'{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}'


def _with_stamps(
    path: Path, videos: Sequence[StampedVideo], how_to_add_stamps: str
) -> tuple[TimedVideo, ...]:
    faults, timed = [], []
    for video in videos:
        stamps_ns = video.stamps_ns or stamps_of_names(video.frame_names)
        if stamps_ns is None:
            faults.append(f'Video {video.name} has no stamps. {how_to_add_stamps}')
        elif any(b <= a for a, b in zip(stamps_ns, stamps_ns[1:], strict=False)):
            faults.append(f'Video {video.name}: expected stamps that rise from frame to frame.')
        else:
            timed.append(
                TimedVideo(video.video_id, video.name, video.size, video.frame_names, stamps_ns)
            )
    if not timed and not faults:
        faults.append('Expected at least one video, got none.')
    if faults:
        raise DatasetError(path, faults)
    return tuple(timed)
