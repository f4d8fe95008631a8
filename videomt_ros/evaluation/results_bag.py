"""Scores the results of a running node that were recorded in a bag.

The lists of tracks (`videomt_ros/msg/TrackArray`) are turned back into the segments that the node
had, and these into the same result files as those of the live mode of `evaluation.evaluator`. An
annotated frame without a list has no result, so its objects count as missed. This needs neither
the network nor ROS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.bags.dataset import BagVideo
from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.messages import TRACK_ARRAY, BagTopic
from videomt_ros.datasets.bags.truth import BagTruth, Match, load_bag_truth, match_video
from videomt_ros.datasets.categories import ClassMap, map_classes
from videomt_ros.datasets.dataset import Category, Dataset, Video, VideoFrame, list_names
from videomt_ros.datasets.rle import decode, to_rle
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.finishing import finish
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.structures import Segment, Segments, TrackState


class RecordedTracks:
    """Reads the lists of tracks of a bag that belong to annotated frames."""

    def __init__(
        self,
        bag: Path,
        topic: str,
        truth: Path,
        images: BagVideo | None = None,
        skip_bad: bool = False,
    ) -> None:
        """Open the bag and the truth, and match their stamps.

        Args:
            bag: rosbag2 folder, or one of its files.
            topic: topic of `TrackArray`; may be empty if there is only one.
            truth: annotation file or folder; see `datasets.bags.truth`.
            images: the images that the node saw, matched with that truth. Then a result belongs to
                an annotated frame if it has the stamp of its image.
            skip_bad: leave out records of the truth with faults.

        Raises:
            BagError: the bag or the topic cannot be used, or holds no list.
            DatasetError: the truth cannot be used, or does not fit the bag.
        """
        self.labels = load_bag_truth(truth, skip_bad)
        self._bag = BagTopic(bag, (TRACK_ARRAY,), topic, f'a topic of {TRACK_ARRAY}')
        self.topic = self._bag.topic
        stamps_ns = []
        self._num_same_ids = 0
        names: dict[int, str] = {}
        models: set[str] = set()
        for message in self._bag.messages():
            stamps_ns.append(message.stamp_ns)
            models.add(message.content.model)
            tracks = message.content.tracks
            self._num_same_ids += len(tracks) - len({track.id for track in tracks})
            for track in tracks:
                _check_name(bag, names, track.class_id, track.class_name)
        if not stamps_ns:
            reason = self._bag.first_fault or 'the topic is empty'
            raise BagError(
                f'Expected lists of tracks on {self.topic} of {bag}, got none: {reason}.'
            )
        self.num_messages = len(stamps_ns)
        self._num_same_stamps = len(stamps_ns) - len(set(stamps_ns))
        self.model = ', '.join(sorted(models - {''})) or 'unknown'
        self.class_names = names
        """Name of each class that occurs, by class id."""
        if images is None:
            match = match_video(self.labels, stamps_ns, f'results on {self.topic} of {bag}')
            self.match = _sure(match, stamps_ns)
        else:
            self.match = _by_images(self.labels, images, stamps_ns)
        self._knows_images = images is not None
        self._index = {n: i for i, n in enumerate(self.match.numbers) if n is not None}
        self._faults: list[str] = []

    def frames(self) -> Iterator[tuple[int, Segments]]:
        """Yield number and segments of each annotated frame with a list, in the order of the bag.

        A list that cannot be used is left out and noted.
        """
        self._faults = []
        num_classes = max(self.class_names, default=-1) + 1
        for number, message in enumerate(self._bag.messages()):
            if (index := self._index.get(number)) is None:
                continue
            try:
                segments = segments_of(message.content, message.stamp_ns, num_classes)
                size = self.match.video.size
                if segments.ids.shape != size:
                    height, width = segments.ids.shape
                    raise ValueError(
                        f'Expected results of {size[1]} x {size[0]} pixels, as annotated, got '
                        f'{width} x {height}.'
                    )
            except ValueError as error:
                self._faults.append(f'{self.match.video.frame_names[index]}: {error}')
                continue
            yield index, segments

    @property
    def num_missed(self) -> int:
        """Number of annotated frames without a usable list, once `frames` has been read."""
        return len(self.match.missing) + len(self._faults)

    @property
    def notes(self) -> list[str]:
        """Notes for a reader of the figures, once `frames` has been read."""
        missing, num_frames = self.match.missing, len(self.match.numbers)
        how = f'the nearest stamp within {self.match.tolerance_ns / 1e6:.4g} ms'
        if self._knows_images:
            how = 'by the stamps of their images'
        elif not self.match.tolerance_ns:
            how = 'by equal stamps'
        notes = [
            f'{num_frames - len(missing)} of {num_frames} annotated frames have a result on '
            f'{self.topic} ({how}), which holds {self.num_messages}.'
        ]
        if missing:
            notes.append(
                f'{len(missing)} annotated frames have no result, and count as misses: '
                f'{list_names(missing)}.'
            )
        if self._faults:
            notes.append(
                f'{len(self._faults)} results cannot be used, and their frames count as misses: '
                f'{list_names(self._faults)}'
            )
        if self._num_same_stamps:
            notes.append(
                f'{self._num_same_stamps} of {self.num_messages} results have the stamp of '
                'another one, as in a recording of two replays: the first of each stamp counts.'
            )
        if self._num_same_ids:
            notes.append(
                f'{self._num_same_ids} tracks have the id of another one in the same list: the '
                'first of each id counts.'
            )
        notes += self._bag.notes
        if self._bag.num_faulty:
            notes.append(
                f'{self._bag.num_faulty} messages are unreadable: {self._bag.first_fault}'
            )
        if self._bag.is_cut_off or self.num_messages < self._bag.num_stored:
            notes.append(
                f'The bag {self._bag.path} is damaged or was cut off: {self.num_messages} results '
                'could be read.'
            )
        return notes


def segments_of(message: Any, stamp_ns: int, num_classes: int) -> Segments:
    """Turn a list of tracks back into segments; a LOST track has no pixels.

    Of several tracks of one id, which a node never publishes, the first counts.

    Args:
        message: a `videomt_ros/msg/TrackArray` of rclpy or of rosbags.
        stamp_ns: stamp of its header.
        num_classes: number of classes of the model.

    Raises:
        ValueError: a mask is no valid run-length code of an image of the message's size.
    """
    height, width = message.height, message.width
    ids = np.zeros((height, width), np.uint16)
    segments = []
    known: set[int] = set()
    for track in message.tracks:
        if track.id in known:
            continue
        known.add(track.id)
        state = TrackState(track.state)
        area = 0
        if track.mask.counts and state is not TrackState.LOST:
            size = [track.mask.height, track.mask.width]
            code = to_rle({'size': size, 'counts': track.mask.counts}, height, width)
            if code is not None:
                mask = decode(code)
                ids[mask] = track.id
                area = int(np.count_nonzero(mask))
        box, seen = track.box, track.last_seen
        segments.append(
            Segment(
                track_id=track.id,
                class_id=track.class_id,
                class_name=track.class_name,
                is_thing=track.is_thing,
                score=float(track.score),
                state=state,
                age=track.age,
                last_seen_ns=seen.sec * 1_000_000_000 + seen.nanosec,
                box=(
                    box.x_offset,
                    box.y_offset,
                    box.x_offset + box.width,
                    box.y_offset + box.height,
                ),
                area=area,
            )
        )
    return Segments(stamp_ns, ids, tuple(segments), num_classes)


def evaluate_results_bag(
    bag: Path,
    topic: str,
    truth: Path,
    out: Path,
    images: BagVideo | None = None,
    resume: bool = False,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Score a recording.

    Args:
        bag: bag with lists of tracks.
        topic: topic of `TrackArray`; may be empty if there is only one.
        truth: annotation file or folder; see `datasets.bags.truth`.
        out: new folder for result files, figures and report, as that of `evaluator.evaluate`.
        images: the images that the node saw; they match the truth's stamps, and are the pictures
            of the report.
        resume: overwrite the results in the folder, which must be of the same recording.
        skip_bad: leave out records of the truth with faults, and list them in `left_out`.

    Returns:
        The content of `metrics.json`.

    Raises:
        BagError, DatasetError: bag or truth cannot be used.
        ValueError: no class is a category of the truth, or the folder holds results.
    """
    recorded = RecordedTracks(bag, topic, truth, images, skip_bad)
    video = _RecordedVideo(recorded, images)
    dataset = _as_dataset(f'bag {bag.name}', recorded.labels, video, skip_bad)
    classes = _map(recorded.class_names, dataset.categories)
    run: dict[str, Any] = {
        'dataset': dataset.name,
        'split': dataset.split,
        'limit': None,
        'model': recorded.model,
        'modes': ['live'],
        'settings': {},
        'benchmark': dataset.family,
        'num_videos': 1,
        'num_resumed': 0,
        'processes': 1,
        'notes': list(classes.notes),
    }
    request = {'results_bag': str(bag), 'topic': recorded.topic, 'truth': str(truth)}
    family = family_of(dataset.family)
    with closing(RunFolder(out, family)) as folder:
        folder.start(request, resume)
        results = family.new_results(folder.workplace('live', 0), video, dataset.categories)
        live = family.live_video(results, classes)
        for index, segments in recorded.frames():
            live.add(index, segments)
        num_frames = len(video.frame_names)
        folder.finish('live', 0, video, live.finish(), num_frames)
        run['frames'] = {'annotated': num_frames, 'missed': recorded.num_missed}
        return finish(dataset, dataset.videos, ['live'], folder, run, {})


def _as_dataset(name: str, labels: BagTruth, video: Video, skip_bad: bool) -> Dataset:
    """Describe the one video of a recording as a data set."""
    return Dataset(
        name,
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


class _RecordedVideo:
    """The annotated video of a recording. See `datasets.dataset.Video`."""

    def __init__(self, recorded: RecordedTracks, images: BagVideo | None) -> None:
        video = recorded.match.video
        self.video_id, self.name = video.video_id, video.name
        self.size, self.frame_names = video.size, video.frame_names
        self._recorded, self._images = recorded, images

    @property
    def notes(self) -> list[str]:
        """Notes of the recording."""
        return self._recorded.notes

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the images; see `Video`.

        Raises:
            ValueError: none were given.
        """
        if self._images is None:
            raise ValueError('A recording of results has no images; name their bag by --bag, too.')
        return self._images.frames()


def _check_name(bag: Path, names: dict[int, str], class_id: int, name: str) -> None:
    """Note the name of a class, which must be the same in the whole bag."""
    if names.setdefault(class_id, name) != name:
        raise BagError(
            f'Expected one model in {bag}, but class {class_id} is {names[class_id]!r} and '
            f'{name!r} there.'
        )


def _sure(match: Match, stamps_ns: list[int]) -> Match:
    """Leave out results that may belong to a neighbour of the annotated frame.

    If any result has exactly the stamp of its frame, the truth has the stamps of the images, and
    all results must match exactly. Else a result must be nearer than half the smallest step
    between results, which is the camera's period if two successive images have results. The
    period of the truth is no measure: often only every fifth image is labelled, and if that image
    was dropped, it must not get the result of a neighbour.
    """
    truth_ns = match.video.stamps_ns
    away = [
        None if n is None else abs(stamps_ns[n] - truth_ns[i]) for i, n in enumerate(match.numbers)
    ]
    if 0 in away:
        tolerance_ns = 0
    else:
        ordered = sorted(set(stamps_ns))
        steps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
        tolerance_ns = min([match.tolerance_ns, *((step - 1) // 2 for step in steps)])
    numbers = tuple(
        n if distance is not None and distance <= tolerance_ns else None
        for n, distance in zip(match.numbers, away, strict=True)
    )
    return Match(match.video, tolerance_ns, numbers)


def _by_images(labels: BagTruth, images: BagVideo, stamps_ns: list[int]) -> Match:
    """Match results by the stamps of the images, which are matched with the truth already."""
    number_of: dict[int, int] = {}
    for number, stamp_ns in enumerate(stamps_ns):
        number_of.setdefault(stamp_ns, number)
    (video,) = (video for video in labels.videos if video.video_id == images.video_id)
    return Match(
        video,
        0,
        tuple(
            None if stamp_ns is None else number_of.get(stamp_ns)
            for stamp_ns in images.annotated_ns
        ),
    )


def _map(names: Mapping[int, str], categories: tuple[Category, ...]) -> ClassMap:
    """Map classes by name; classes that the node never sent are unknown and do not matter."""
    if not names:
        return ClassMap(())
    known = sorted(names)
    found = map_classes([names[k] for k in known], categories, '')
    numbers = dict(zip(known, found.category_ids, strict=True))
    # Categories that never occur in the recording are not worth a note.
    notes = tuple(note for note in found.notes if note.startswith('Classes of the model'))
    return ClassMap(tuple(numbers.get(k) for k in range(known[-1] + 1)), notes)
