"""A bag with its truth as a data set of one video; `truth.py` matches the two by their stamps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.truth import BagTruth, Match, load_bag_truth, match_video
from videomt_ros.datasets.compressed import turn_hint
from videomt_ros.datasets.dataset import Dataset, DatasetError, VideoFrame, list_names
from videomt_ros.datasets.images import FrameError, GreyRange
from videomt_ros.datasets.stream_clock import StreamClock


class BagVideo:
    """The images of a bag in the order of recording; see `datasets.dataset.Video`.

    Times are those of the node: the stamp of the image, or where a driver set none, the stamp
    before it plus the recorded time since then.
    """

    def __init__(
        self, images: BagImages, match: Match, stamps_ns: list[int], times_ns: list[int]
    ) -> None:
        """Join images and truth; see `open_bag_video`."""
        self.topic = images.topic
        """Topic of the images."""
        self.video_id, self.name = match.video.video_id, match.video.name
        self.size, self.frame_names = match.video.size, match.video.frame_names
        self.stamps_ns = tuple(times_ns)
        """Time of every image, as `frames` gives it."""
        self.annotated_ns = tuple(None if n is None else stamps_ns[n] for n in match.numbers)
        """Stamp of each annotated frame's image, which a node copies to its results."""
        self._images = images
        self._index = {n: i for i, n in enumerate(match.numbers) if n is not None}
        self._matching = _matching_notes(match, images.topic, len(times_ns))
        self._losses = list(images.notes)
        self._unreadable: list[str] = []

    @property
    def notes(self) -> list[str]:
        """Remarks that a reader of the figures needs; complete after a pass over the frames."""
        return [*self._matching, *self._losses, *self._unreadable]

    @property
    def losses(self) -> list[str]:
        """The remarks of `notes`, without the first where all annotated frames have an image."""
        return self.notes if len(self._matching) > 1 else self.notes[1:]

    def with_grey_range(self, grey_range: GreyRange | None) -> BagVideo:
        """Return the same video, read with another range of grey values."""
        other = copy.copy(self)
        other._images = self._images.with_grey_range(grey_range)
        other._losses = list(other._images.notes)
        return other

    def frames(self) -> Iterator[VideoFrame]:
        """Read every image that can be read; the others are noted.

        Raises:
            DatasetError: an image that is annotated has another size than its annotation.
        """
        unreadable, lost = [], []
        for number, (image, time_ns) in enumerate(
            zip(self._images.images(), self.stamps_ns, strict=True)
        ):
            index = self._index.get(number)
            try:
                pixels = image.decode()
            except FrameError as error:
                unreadable.append(str(error))
                if index is not None:
                    lost.append(self.frame_names[index])
                continue
            if index is not None and pixels.shape[:2] != self.size:
                raise DatasetError(
                    self._images.path,
                    [
                        f'Expected an image of {self.size[1]} x {self.size[0]} pixels for '
                        f'{self.frame_names[index]}, as annotated, got {pixels.shape[1]} x '
                        f'{pixels.shape[0]}.{turn_hint(self._images.orientation)}'
                    ],
                )
            yield VideoFrame(index, time_ns, pixels)
        self._unreadable = []
        if unreadable:
            self._unreadable.append(
                f'{len(unreadable)} of {len(self.stamps_ns)} images are unreadable: '
                f'{unreadable[0]}'
            )
        if lost:
            self._unreadable.append(
                f'{len(lost)} of them are annotated, and count as misses: {list_names(lost)}.'
            )


def bag_dataset(bag: Path, topic: str, truth: Path, *, skip_bad: bool = False) -> Dataset:
    """Open a bag and its truth.

    Args:
        bag: folder or file that `datasets.bags.images` reads.
        topic: image topic; may be empty if there is only one.
        truth: the JSON of YTVIS or of VIPSeg, or the folder of VSPW, with stamps. Of several
            videos, the one whose stamps match is taken.
        skip_bad: leave out records of the truth with faults; see `open_dataset`.

    Returns:
        A data set with one `BagVideo`. Its annotated frames are those of the truth, with or
        without an image; images that are not annotated come with index None.

    Raises:
        BagError: the bag or the topic cannot be used.
        DatasetError: the truth cannot be used, or does not fit the bag.
    """
    labels = load_bag_truth(truth, skip_bad)
    video = open_bag_video(bag, topic, labels)
    return Dataset(
        # With the topic: another camera of the bag is another data set.
        f'bag {bag.name} {video.topic}',
        labels.family,
        labels.categories,
        (video,),
        truth=(labels.path,),
        truth_masks=labels.masks,
        split=labels.split,
        is_drawn=labels.is_drawn,
        skip_bad=skip_bad,
        notes=labels.notes,
        left_out=labels.left_out,
    )


def open_bag_video(bag: Path, topic: str, labels: BagTruth) -> BagVideo:
    """Open the images of a bag as the video of a truth that its stamps match.

    Args:
        bag: folder or file that `datasets.bags.images` reads.
        topic: image topic; may be empty if there is only one.
        labels: the truth of this bag, and maybe of others.

    Raises:
        BagError: the bag or the topic cannot be used.
        DatasetError: the truth does not fit the bag.
    """
    images = BagImages(bag, topic)
    clock, first_ns = StreamClock(), 0
    stamps_ns, times_ns, num_unstamped = [], [], 0
    for image in images.images():
        first_ns = first_ns or image.time_ns  # seconds since 1970 are too many for a float
        since_s = (image.time_ns - first_ns) * 1e-9
        time_ns = clock.time_of(image.stamp_ns, image.time_ns, since_s)
        num_unstamped += not image.stamp_ns
        stamps_ns.append(image.stamp_ns or time_ns)
        times_ns.append(time_ns)
    if num_unstamped:
        images.notes.append(
            f'{num_unstamped} of {len(times_ns)} images have no stamp; {images.time_name} was '
            'taken.'
        )
    match = match_video(labels, stamps_ns, f'images on {images.topic} of {bag}')
    return BagVideo(images, match, stamps_ns, times_ns)


def _matching_notes(match: Match, topic: str, num_images: int) -> list[str]:
    num_frames, missing = len(match.numbers), match.missing
    num_matched = num_frames - len(missing)
    notes = [
        f'{num_matched} of {num_frames} annotated frames have an image on {topic} '
        f'(the nearest stamp within {match.tolerance_ns / 1e6:.4g} ms, half the median period); '
        f'{num_images - num_matched} of {num_images} images are not annotated: '
        'the model sees them, and they are not scored.'
    ]
    if missing:
        notes.append(
            f'{len(missing)} annotated frames have no image, and count as misses: '
            f'{list_names(missing)}.'
        )
    return notes
