"""One panoptic PNG per frame and the JSON entries that explain its ids: VIPSeg and COCO."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.record_checks import Checks, is_number
from videomt_ros.datasets.json_files import as_whole, shown
from videomt_ros.datasets.mask_png import MAX_ID, present_ids, read_ids

SegmentsInfo = list[dict[str, Any]]
"""Entries of one frame with `id` and `category_id`; those of a truth have `iscrowd` and `area`,
which is None where the file has none."""


@dataclass(frozen=True)
class VipsegVideo:
    """One video in the JSON of a data set."""

    video_id: str
    size: tuple[int, int]
    """Size (height, width) of the frames in pixels."""
    frame_names: tuple[str, ...]
    """T names of PNGs, such as '00000123.png', in truth and results alike."""
    stamps_ns: tuple[int, ...] | None = None
    """T stamps, if the JSON has a `stamp_ns` in each image."""
    fps: float | None = None
    """Frames per second, if the JSON has them."""

    @property
    def name(self) -> str:
        """Name of the video's folders, which is its id."""
        return self.video_id


class PanopticFrames:
    """Ids and segments of each frame of some videos; PNGs are read on demand."""

    def __init__(
        self,
        videos: Sequence[VipsegVideo],
        segments: Mapping[str, Sequence[SegmentsInfo]],
        masks: Mapping[str, Sequence[Path]],
    ) -> None:
        """Join the videos with their segments and PNGs.

        Args:
            videos: all of them.
            segments: by video id, T entries.
            masks: by video id, T paths of PNGs.
        """
        self.videos = tuple(videos)
        self._by_id = {video.video_id: video for video in videos}
        self._segments = segments
        self._masks = masks

    def segments(self, video_id: str, t: int) -> SegmentsInfo:
        """Return the segments of a frame in the order of the JSON; they must not be changed."""
        return self._segments[video_id][t]

    def path(self, video_id: str, t: int) -> Path:
        """Return the path of the PNG of a frame."""
        return self._masks[video_id][t]

    def ids(self, video_id: str, t: int) -> NDArray[np.uint32]:
        """Read the ids of a frame from its PNG, (H, W) uint32; 0 is void.

        Raises:
            DatasetError: the PNG cannot be read, has another size or mode, or ids that do not fit
                the JSON.
        """
        path = self._masks[video_id][t]
        ids = read_ids(path, self._by_id[video_id].size)
        listed = {segment['id'] for segment in self.segments(video_id, t)}
        if faults := self._compare(set(present_ids(ids).tolist()) - {0}, listed):
            raise DatasetError(path, faults)
        return ids

    def _compare(self, present: set[int], listed: set[int]) -> list[str]:
        """Compare the ids in the PNG of a frame with those in the JSON, and list the faults."""
        if unlisted := sorted(present - listed):
            return [f'Expected only ids that the JSON lists for this frame, got also {unlisted}.']
        return []


class VipsegTruth(PanopticFrames):
    """True segments of a data set, read by `datasets.formats.vipseg.load_vipseg`."""

    def __init__(
        self,
        categories: Sequence[Category],
        videos: Sequence[VipsegVideo],
        segments: Mapping[str, Sequence[SegmentsInfo]],
        masks: Mapping[str, Sequence[Path]],
        is_drawn: bool = False,
        notes: Sequence[str] = (),
        left_out: Sequence[str] = (),
        unusable: Mapping[int | str, str] | None = None,
    ) -> None:
        """Join the videos with classes, segments and PNGs; see `PanopticFrames`.

        A data set without annotations has neither segments nor masks. For `notes` and `left_out`
        see `Dataset`.
        """
        super().__init__(videos, segments, masks)
        self.categories = tuple(categories)
        self.has_annotations = bool(segments)
        self.is_drawn = is_drawn
        self.notes, self.left_out = tuple(notes), tuple(left_out)
        self.unusable = dict(unusable or {})
        """Why a video cannot be scored, such as for a missing PNG, by its id."""

    def segments(self, video_id: str, t: int) -> SegmentsInfo:
        """Return the segments of a frame.

        Raises:
            DatasetError: the video has no annotations.
        """
        if video_id not in self._segments:
            reason = self.unusable.get(video_id, f'Video {video_id}: got no annotations.')
            raise DatasetError(Path(video_id), [reason])
        return super().segments(video_id, t)


class VipsegResults(PanopticFrames):
    """Predicted segments, read by `datasets.formats.vipseg.load_vipseg_results`."""

    def __init__(
        self,
        videos: Sequence[VipsegVideo],
        segments: Mapping[str, Sequence[SegmentsInfo]],
        masks: Mapping[str, Sequence[Path]],
        left_out: Sequence[str] = (),
        unusable: Mapping[int | str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Join the videos with segments and PNGs; a video without an entry is all void."""
        super().__init__(videos, segments, masks)
        self.unusable = dict(unusable or {})
        """Why the results of a video cannot be used, such as for a missing PNG, by its id."""
        self.notes = tuple(notes)
        """Remarks on what was ignored."""
        self.left_out = tuple(left_out)
        """One line per video whose result was left out; see `Dataset.left_out`."""
        self.missing = tuple(v.video_id for v in videos if v.video_id not in segments)
        """Ids of the videos that have no result."""

    def segments(self, video_id: str, t: int) -> SegmentsInfo:
        """Return the segments of a frame; none in a video without a result."""
        return [] if video_id in self.missing else super().segments(video_id, t)

    def ids(self, video_id: str, t: int) -> NDArray[np.uint32]:
        """Read the ids of a frame; all are 0 in a video without a result."""
        if video_id in self.missing:
            return np.zeros(self._by_id[video_id].size, np.uint32)
        return super().ids(video_id, t)

    def _compare(self, present: set[int], listed: set[int]) -> list[str]:
        """Compare the ids; a truth may list segments without pixels, a prediction may not."""
        faults = super()._compare(present, listed)
        if absent := sorted(listed - present):
            faults.append(
                f'Expected pixels of every id that the JSON lists for this frame, got none of '
                f'{absent}.'
            )
        return faults


def used_categories(segments: Mapping[str, Sequence[SegmentsInfo]]) -> set[int]:
    """Collect the category ids of all segments, which are given by video and frame."""
    return {
        segment['category_id']
        for frames in segments.values()
        for frame in frames
        for segment in frame
    }


def read_segments(
    segments: object, category_ids: Collection[int], where: str, checks: Checks, *, is_truth: bool
) -> SegmentsInfo:
    """Check the `segments_info` of one frame.

    Args:
        segments: content of the field.
        category_ids: categories that a segment may have.
        where: name of the frame for faults.
        checks: collects the faults.
        is_truth: whether segments have `iscrowd` (0 if a file lacks it) and `area` (None then, and
            the pixels count).

    Returns:
        The segments, without those that have a fault.
    """

    def fault(text: str) -> None:
        checks.fault(f'{where}: {text}.')

    if not isinstance(segments, list):
        fault(f'expected a list segments_info, got {shown(segments)}')
        return []
    found, seen = [], set()
    for segment in segments:
        if not isinstance(segment, dict):
            fault(f'expected a segment as an object, got {shown(segment)}')
            continue
        number, category_id = as_whole(segment.get('id')), as_whole(segment.get('category_id'))
        num_faults = len(checks.faults)
        if type(number) is not int or not 1 <= number <= MAX_ID:
            fault(f'expected a segment id from 1 to {MAX_ID}, got {shown(number)}')
        elif number in seen:
            fault(f'expected each id once, got id {number} again')
        else:
            seen.add(number)
        if type(category_id) is not int or category_id not in category_ids:
            fault(
                f'expected a category of the truth for id {shown(number)}, '
                f'got category_id {shown(category_id)}'
            )
        entry = {**segment, 'id': number, 'category_id': category_id}
        if is_truth:
            entry['area'] = area = segment.get('area')
            entry['iscrowd'] = is_crowd = as_whole(segment.get('iscrowd'))
            if area is None:
                checks.count('segment', 'without area, which was computed from the pixels')
            elif not (is_number(area) and area >= 0):
                fault(f'expected an area of id {shown(number)}, got {shown(area)}')
            if is_crowd is None:
                checks.count('segment', 'without iscrowd, which was taken as 0')
                entry['iscrowd'] = 0
            elif is_crowd not in (0, 1):
                fault(f'expected iscrowd 0 or 1 of id {shown(number)}, got {shown(is_crowd)}')
        if len(checks.faults) == num_faults:
            found.append(entry)
    return found
