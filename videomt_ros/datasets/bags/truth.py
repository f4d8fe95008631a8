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

from videomt_ros.datasets.dataset import Category, DatasetError, FamilyName
from videomt_ros.datasets.formats.panoptic_files import VipsegVideo
from videomt_ros.datasets.formats.semantic_files import VspwVideo
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import SPLITS, load_vspw
from videomt_ros.datasets.formats.ytvis import YtvisVideo, load_ytvis
from videomt_ros.datasets.image_folder import stamps_of_names
from videomt_ros.datasets.json_files import load_json

_HOW_TO_ADD = {
    'ytvis': 'Add to the video a field `stamps_ns`: one whole number of nanoseconds per frame.',
    'vipseg': 'Add to each of its images a field `stamp_ns`: a whole number of nanoseconds.',
    'vspw': 'Name its masks by the stamps of their images in nanoseconds.',
}


@dataclass(frozen=True)
class TimedVideo:
    """One video of a truth, whose frames have stamps."""

    video_id: int | str
    name: str
    size: tuple[int, int]
    """(height, width) in pixels."""
    frame_names: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    """One per frame, rising."""


@dataclass(frozen=True)
class BagTruth:
    """What the labels of a recording are, and where they lie."""

    family: FamilyName
    path: Path
    categories: tuple[Category, ...]
    videos: tuple[TimedVideo, ...]
    split: str = ''
    """For VSPW."""

    @property
    def masks(self) -> Path | None:
        """Folder of the true PNGs, for VIPSeg."""
        return self.path.parent / 'panomasksRGB' if self.family == 'vipseg' else None


@dataclass(frozen=True)
class Match:
    """A video of a truth, and which of the given stamps belong to its frames."""

    video: TimedVideo
    tolerance_ns: int
    numbers: tuple[int | None, ...]
    """For each frame the place of its stamp among those given, or None."""

    @property
    def missing(self) -> list[str]:
        """Names of the frames without one."""
        names = self.video.frame_names
        return [names[i] for i, number in enumerate(self.numbers) if number is None]


def load_bag_truth(path: Path) -> BagTruth:
    """Read annotations; what they are is seen from them.

    Args:
        path: the JSON of YTVIS or of VIPSeg, or the folder of VSPW.

    Raises:
        DatasetError: they cannot be used, or a video has no stamps.
    """
    if path.is_dir():
        split = _vspw_split(path)
        truth = load_vspw(path, split)
        videos = _with_stamps(path, 'vspw', truth.videos)
        return BagTruth('vspw', path, truth.categories, videos, split)
    content = load_json(path)
    records = content.get('videos') if isinstance(content, dict) else None
    first = records[0] if isinstance(records, list) and records else {}
    del content, records  # they may be large, and the loaders read and check the file themselves
    if isinstance(first, dict) and 'images' in first:
        panoptic = load_vipseg(path)
        videos = _with_stamps(path, 'vipseg', panoptic.videos)
        return BagTruth('vipseg', path, panoptic.categories, videos)
    instances = load_ytvis(path)
    if not instances.has_annotations:
        raise DatasetError(path, ['Expected a field `annotations`; there is no truth without.'])
    videos = _with_stamps(path, 'ytvis', instances.videos)
    return BagTruth('ytvis', path, instances.categories, videos)


def match_video(truth: BagTruth, stamps_ns: Sequence[int], what: str) -> Match:
    """Choose the video of the truth that some stamps belong to.

    Args:
        truth: may hold several videos; the one whose stamps fit is taken.
        stamps_ns: of images or results, in any order.
        what: they are of, for errors, such as 'images on /camera/image_raw'.

    Raises:
        DatasetError: the stamps fit none of its videos, or more than one.
    """
    matches = []
    for video in truth.videos:
        # One annotated frame has no period; then that of the images is all there is.
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
        tolerance_ns: largest distance, allowed itself.

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
    """Half the median distance of neighbouring stamps, in nanoseconds; 0 for fewer than two.

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
    path: Path,
    family: FamilyName,
    videos: Sequence[YtvisVideo | VipsegVideo | VspwVideo],
) -> tuple[TimedVideo, ...]:
    faults, timed = [], []
    for video in videos:
        stamps_ns = video.stamps_ns or stamps_of_names(video.frame_names)
        if stamps_ns is None:
            faults.append(f'Video {video.name} has no stamps. {_HOW_TO_ADD[family]}')
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


def _vspw_split(folder: Path) -> str:
    """The split that a folder has a list of; val if there are several."""
    bases = (folder, folder / 'VSPW_480p')
    found = [
        split
        for split in ('val', *sorted(set(SPLITS.values()) - {'val'}))
        if any((base / f'{split}.txt').is_file() for base in bases)
    ]
    if not found:
        names = ', '.join(f'{split}.txt' for split in sorted(set(SPLITS.values())))
        raise DatasetError(folder, [f'Expected a list of videos out of {names}, got none.'])
    return found[0]
