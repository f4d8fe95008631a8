"""Joins the masks of single frames into one track per object of a video.

Files that list images, such as CocoVID and the exports of labelling tools, have one record per
object and frame, and a field that tells which records show the same object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pycocotools import mask as coco_mask

from videomt_ros.datasets.formats.instance_files import FileMasks, YtvisVideo
from videomt_ros.datasets.formats.record_checks import Checks, counted
from videomt_ros.datasets.rle import MaskTrack, convert

Identity = int | str
"""What tells an object from the others of its video, in the words of the file."""


@dataclass
class _Parts:
    """What the records of one object say, frame by frame."""

    segmentations: list[Any]
    areas: list[float | None]
    categories: Counter[int] = field(default_factory=Counter)
    crowd_flags: set[bool] = field(default_factory=set)


class FrameTracks:
    """Collects masks by video, object and frame; frames without a mask stay empty."""

    def __init__(self, videos: Mapping[int, YtvisVideo], checks: Checks, named: str) -> None:
        """Start without a mask.

        Args:
            videos: videos by their ids.
            checks: collects the faults of objects.
            named: word for an object in faults, such as 'Track'.
        """
        self._videos = videos
        self._checks = checks
        self._named = named
        self._parts: dict[tuple[int, Identity], _Parts] = {}

    def add(
        self,
        video_id: int,
        frame: int,
        identity: Identity,
        category_id: int,
        segmentation: Any,
        area: float | None = None,
        is_crowd: bool = False,
    ) -> None:
        """Add what one record says; several masks of an object in one frame become their union.

        Args:
            video_id: id of the video.
            frame: index of the frame, 0..T-1.
            identity: what all records of the object share.
            category_id: id of its category.
            segmentation: checked mask in the form of a file; None or empty if there is none.
            area: area in pixels; None: that of the mask.
            is_crowd: whether the record shows a group.
        """
        video = self._videos[video_id]
        length = len(video.frame_names)
        key = video_id, identity
        if key not in self._parts:
            self._parts[key] = _Parts([None] * length, [None] * length)
        parts = self._parts[key]
        parts.categories[category_id] += 1
        parts.crowd_flags.add(is_crowd)
        if not segmentation:
            return
        other = parts.segmentations[frame]
        if other is None:
            parts.segmentations[frame], parts.areas[frame] = segmentation, area
        else:
            self._checks.count('mask', 'joined with others of their object in their frame')
            parts.segmentations[frame] = _union(other, segmentation, video.size)
            parts.areas[frame] = None
        if parts.areas[frame] is None:
            whole = convert(parts.segmentations[frame], *video.size)
            parts.areas[frame] = float(coco_mask.area(whole))

    def tracks(self) -> list[MaskTrack]:
        """Build the tracks, sorted by video and identity.

        An object keeps its number as `track_id` if no other of the file has it; where two videos
        count from 1, the tracks are numbered anew.
        """
        order = sorted(self._parts, key=lambda key: (key[0], isinstance(key[1], str), key[1]))
        identities = [identity for _, identity in order]
        keeps_numbers = len(set(identities)) == len(identities) and not any(
            isinstance(identity, str) for identity in identities
        )
        found = []
        for number, key in self._checks.each(enumerate(order, start=1)):
            video_id, identity = key
            parts, video = self._parts[key], self._videos[video_id]
            where = f'{self._named} {identity} of video {video_id}'
            if len(parts.categories) > 1:
                times = ' and '.join(
                    f'{category_id} in {counted(count, "record")}'
                    for category_id, count in parts.categories.most_common()
                )
                self._checks.fault(
                    f'{where}: changes its category, which is {times}. Expected one for the whole '
                    'video; give another object another number.'
                )
            if len(parts.crowd_flags) > 1:
                self._checks.fault(f'{where}: expected the same iscrowd in all frames.')
            if not any(parts.segmentations):
                self._checks.fault(
                    f'{where}: has no mask in any frame; a box says nothing of the pixels.'
                )
            if self._checks.keeps:
                track_id = identity if keeps_numbers and isinstance(identity, int) else number
                found.append(
                    MaskTrack(
                        video_id,
                        parts.categories.most_common(1)[0][0],
                        FileMasks(parts.segmentations, video.size),
                        is_crowd=True in parts.crowd_flags,
                        areas=parts.areas,
                        track_id=track_id,
                    )
                )
        return found


def _union(first: Any, second: Any, size: tuple[int, int]) -> Any:
    """Return a segmentation of all that two checked ones cover."""
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]  # polygons, whose union a list of them stands for
    return coco_mask.merge([convert(first, *size), convert(second, *size)])
