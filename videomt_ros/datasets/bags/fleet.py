"""The bags of a fleet with their truths as one data set, with a video for each bag.

Bags are opened when their frames are read, so that a process that evaluates a few of them does not
read all. One that cannot be read is a video that fails.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path

from videomt_ros.datasets.bags.dataset import open_bag_video
from videomt_ros.datasets.bags.fleet_files import FleetBag
from videomt_ros.datasets.bags.fleet_truth import (
    UNIONS,
    LabelledVideo,
    class_notes,
    merge_classes,
)
from videomt_ros.datasets.bags.truth import BagTruth, load_bag_truth
from videomt_ros.datasets.dataset import AnnotatedVideo, Dataset, DatasetError, Video, VideoFrame
from videomt_ros.datasets.images import GreyRange


class FleetVideo:
    """The images of a bag, which is opened when they are read; see `datasets.dataset.Video`."""

    def __init__(
        self, video: AnnotatedVideo, source: FleetBag, topic: str, labels: BagTruth
    ) -> None:
        """Join a video of the truth of all bags with its bag; see `fleet_dataset`."""
        self.video_id, self.name = video.video_id, video.name
        self.size, self.frame_names = video.size, video.frame_names
        self.notes: list[str] = []
        """Remarks on what was lost; complete after a pass over the frames."""
        self._source, self._topic, self._labels = source, topic, labels
        self._grey_range: GreyRange | None = None

    def with_grey_range(self, grey_range: GreyRange | None) -> FleetVideo:
        """Return the same video, read with another range of grey values."""
        other = copy.copy(self)
        other._grey_range = grey_range
        return other

    def frames(self) -> Iterator[VideoFrame]:
        """Read every image that can be read.

        Raises:
            BagError: the bag or the topic cannot be used.
            DatasetError: there is no bag, it does not fit its truth, or an annotated image has
                another size.
        """
        if self._source.bag is None:
            raise DatasetError(self._labels.path, [self._source.problem])
        video = open_bag_video(self._source.bag, self._topic, self._labels)
        video = video.with_grey_range(self._grey_range)
        yield from video.frames()
        self.notes = [f'{self.name}: {note}' for note in video.losses]


def fleet_dataset(
    name: str,
    bags: Sequence[FleetBag],
    topic: str,
    scratch: Path,
    *,
    skip_bad: bool = False,
) -> Dataset:
    """Open bags and their truths as one data set.

    Args:
        name: name of the data set.
        bags: what `find_fleet` or `name_fleet` has returned.
        topic: image topic of the bags; may be empty where each has only one.
        scratch: existing, empty folder, in which the truth of all bags is written; it must outlast
            the data set.
        skip_bad: leave out bad records of the truths and list them, instead of refusing a truth.

    Returns:
        A data set with a video for each truth that can be used. A bag that is missing or cannot be
        read fails when its frames are read. Bags whose truth is missing or cannot be used are in
        `unopened`.

    Raises:
        DatasetError: no bag can be used, or truths contradict each other.
    """
    unopened: list[tuple[str, str]] = []
    labelled: list[LabelledVideo] = []
    sources: list[FleetBag] = []
    truths: dict[Path, BagTruth] = {}
    faults: dict[Path, str] = {}
    for each in bags:
        if each.truth is None:
            unopened.append((each.name, each.problem))
            continue
        if each.truth not in truths and each.truth not in faults:
            try:
                truths[each.truth] = load_bag_truth(each.truth, skip_bad)
            except (DatasetError, OSError) as error:
                faults[each.truth] = str(error)
        if each.truth in faults:
            unopened.append((each.name, faults[each.truth]))
            continue
        try:
            labelled.append(_label(each, truths[each.truth], topic, labelled))
            sources.append(each)
        except (ValueError, OSError) as error:
            unopened.append((each.name, str(error)))
    _check_usable(name, labelled, unopened)
    used = list({each.truth.path: each.truth for each in labelled}.values())
    _check_families(used)
    classes = merge_classes(used)
    family = used[0].family
    written = UNIONS[family].write(scratch, labelled, classes, skip_bad)
    unopened += written.faults.items()
    _check_usable(name, written.videos, unopened)
    kept = [
        (source, each.truth)
        for source, each in zip(sources, labelled, strict=True)
        if each.name not in written.faults
    ]
    videos: tuple[Video, ...] = tuple(
        FleetVideo(video, source, topic, truth)
        for video, (source, truth) in zip(written.videos, kept, strict=True)
    )
    notes = [note for truth in used for note in truth.notes]
    return Dataset(
        name,
        family,
        classes.categories,
        videos,
        truth=(written.path,),
        truth_masks=written.masks,
        split=written.split,
        is_drawn=all(truth.is_drawn for truth in used),
        skip_bad=skip_bad,
        notes=(*dict.fromkeys(notes), *class_notes(used, classes)),
        left_out=tuple(line for truth in used for line in truth.left_out),
        unopened=tuple(unopened),
        scratch=scratch,
    )


def _label(
    source: FleetBag, truth: BagTruth, topic: str, earlier: Sequence[LabelledVideo]
) -> LabelledVideo:
    """Find the video of a bag in its truth.

    Raises:
        DatasetError: its stamps tell none, or one of another bag.
        BagError: the bag, which must tell which video it is, cannot be read.
    """
    video = truth.videos[0]
    if len(truth.videos) > 1:
        if source.bag is None:
            fault = f'{source.problem} It has {len(truth.videos)} videos.'
            raise DatasetError(truth.path, [fault])
        found = open_bag_video(source.bag, topic, truth)
        video = next(one for one in truth.videos if one.video_id == found.video_id)
    for other in earlier:
        if other.truth is truth and other.video == video:
            fault = f'Expected a video for each bag, but {video.name} is that of {other.name}.'
            raise DatasetError(truth.path, [fault])
    return LabelledVideo(source.name, truth, video)


def _check_usable(name: str, videos: Sized, unopened: Sequence[tuple[str, str]]) -> None:
    """Raise DatasetError, with the reason for each bag, if there is no video."""
    if not videos:
        faults = [f'{bag}: {problem}' for bag, problem in unopened]
        raise DatasetError(Path(name), faults or ['There is no bag.'])


def _check_families(truths: Sequence[BagTruth]) -> None:
    """Raise DatasetError if truths are not of one family."""
    by_family: dict[str, list[BagTruth]] = {}
    for truth in truths:
        by_family.setdefault(truth.family, []).append(truth)
    if len(by_family) > 1:
        parts = ', '.join(
            f'{len(some)} of {family} (such as {some[0].path.name})'
            for family, some in by_family.items()
        )
        raise DatasetError(
            truths[0].path.parent,
            [f'Expected truths of one family, got {parts}. Evaluate each family by itself.'],
        )
