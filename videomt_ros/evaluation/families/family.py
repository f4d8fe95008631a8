"""The interface of a family: a kind of data set with its result files, scores and report texts.

A new family is a module in this folder with a subclass of `Family`, and a line in the table in
`__init__.py`. Nothing here or in the other modules of this folder needs torch.

Letters: H W image size in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import AnnotatedVideo, Category, Dataset, Video
from videomt_ros.evaluation.figures import TRACKING, TRACKING_GROUP, Figures, Group
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.evaluation.whole_video import EndedVideo
    from videomt_ros.inference.stream_settings import StreamSettings
    from videomt_ros.model.config import Task

VideoId = int | str


class VideoResults(Protocol):
    """The results of one video while they are written to a folder.

    Annotated frames are added one by one and none is held, so that memory does not grow with the
    length of a video. A frame that is never added has an empty result. Another thread may call
    `add`, in the order of the calls.
    """

    def add(self, *result: Any) -> None:
        """Add the result of a frame; what it is differs by family."""
        ...

    def abort(self) -> None:
        """Close what is open; the video has no result."""
        ...


class LiveVideo(Protocol):
    """Turns what a stream reports frame by frame into the results of one video.

    The segments are stored as the stream reported them, so each frame's result depends on earlier
    frames only.
    """

    def add(self, index: int, segments: Segments) -> None:
        """Add the segments of annotated frame `index`."""
        ...

    def finish(self) -> dict[str, Any]:
        """Complete the results.

        Returns:
            What `Family.write_files` needs beside the files in the folder, as plain JSON values.
        """
        ...


class StoredVideo(NamedTuple):
    """The stored results of one video."""

    video: Video
    folder: Path
    """The folder that `VideoResults` has filled."""
    content: dict[str, Any]
    """Return value of `LiveVideo.finish` or `Family.write_published`."""


class Label(NamedTuple):
    """One object or track of a frame."""

    key: int
    """Value of the object's pixels in the image of keys, 1 .. 2^32 - 1; constant along the video.
    """
    class_name: str
    is_thing: bool
    score: float | None
    """Score of a prediction; None where it is not known."""
    track_id: int | None = None
    """Id of the object in `ScoreReport.switches`, which may be any whole number; None: the key."""

    @property
    def object_id(self) -> int:
        """Id of the object in `ScoreReport.switches`."""
        return self.key if self.track_id is None else self.track_id


class Labels(Protocol):
    """The objects in each frame of a data set: its truth, or a prediction."""

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """Read the labels of an annotated frame.

        Returns:
            Image of keys (H, W), 0 for nothing, and a label for each key in it.

        Raises:
            OSError, ValueError: the file of this frame cannot be read.
        """
        ...


class TruthLabels(NamedTuple):
    """The truth of some videos."""

    labels: Labels
    num_objects: Mapping[int, int]
    """Number of objects by category id; empty for classes of pixels, which have no objects."""


@dataclass(frozen=True)
class ScoreRequest:
    """Files to score and how to score them; see the arguments of `scoring.score_files`."""

    truth: Sequence[Path]
    results: Path
    truth_masks: Path | None = None
    split: str = ''
    video_ids: Collection[VideoId] | None = None
    track_score: float = 0.0
    skip_bad: bool = False
    is_strict: bool = True
    progress: Callable[[int, int], object] = field(default=lambda done, total: None)


class Family(ABC):
    """Everything that differs between kinds of data sets when a model is evaluated.

    A family has no state: one object of each subclass is in the table of `families`.
    """

    name: ClassVar[str]
    """Name of the family in `Dataset.family`, in files and on the command line."""
    task: ClassVar[Task]
    """Task for which a network's outputs are read, whatever task it was trained for."""
    group: ClassVar[Group]
    """The figures that this family alone has, and their meanings."""
    main_figure: ClassVar[str]
    """The figure that ranks models."""
    class_figure: ClassVar[str]
    """The figure that the report lists for each class."""
    logged_figures: ClassVar[tuple[str, ...]]
    """The few figures that a training run logs."""
    reads_zip: ClassVar[bool] = False
    """Whether a zip of results is read as it is; else it is unpacked first."""
    has_tracks: ClassVar[bool] = True
    """Whether objects have identities along a video, so that there are figures of tracking."""
    paper_names: ClassVar[Mapping[str, str]] = {}
    """Map from the name of a figure in papers to its name here, where the two differ."""
    score_options: ClassVar[frozenset[str]] = frozenset()
    """Optional fields of `ScoreRequest` that have a meaning for this family alone."""

    comparison_note: ClassVar[str] = ''
    """Sentence of the report on how to read the figures."""
    published_note: ClassVar[str] = ''
    """Sentence of the report on how to read figures of the published mode."""
    paper_note: ClassVar[str] = ''
    """Sentence of the report on how the paper's score compares with the figures."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all figures of a score, in the order in which they are listed."""
        return (*self.group.meanings, *(TRACKING if self.has_tracks else ()))

    @property
    def groups(self) -> list[Group]:
        """Groups of the figures of a score, as tables show them."""
        return [self.group, *([TRACKING_GROUP] if self.has_tracks else [])]

    def select(self, figures: Mapping[str, float | None]) -> Figures:
        """Keep the figures of this family, in their order."""
        return {name: figures[name] for name in self.figures}

    def renamed(self, paper_score: Mapping[str, Any]) -> dict[str, Any]:
        """Give the figures of a paper's score the names that they have here."""
        return {self.paper_names.get(name, name): value for name, value in paper_score.items()}

    def check_settings(  # noqa: B027 (most families take any settings)
        self, settings: StreamSettings
    ) -> None:
        """Refuse stream settings with which results would break the format of the files.

        Raises:
            ValueError: says which setting, and what to do.
        """

    @abstractmethod
    def new_results(
        self, folder: Path, video: Video, categories: Sequence[Category]
    ) -> VideoResults:
        """Start the results of a video.

        Args:
            folder: folder of the results, which does not exist yet.
            video: the video.
            categories: categories of the data set.
        """

    @abstractmethod
    def live_video(self, results: Any, classes: ClassMap) -> LiveVideo:
        """Start a video of the live mode.

        Args:
            results: what `new_results` has returned for the video.
            classes: category ids of the model's classes.
        """

    @abstractmethod
    def write_published(
        self, ended: EndedVideo, results: Any, classes: ClassMap
    ) -> dict[str, Any]:
        """Write the results of a video of the published mode.

        Args:
            ended: what the published protocol knows of the video after its last frame.
            results: what `new_results` has returned for the video.
            classes: category ids of the model's classes.

        Returns:
            What `LiveVideo.finish` returns.
        """

    @abstractmethod
    def video_folder(self, target: Path, part: Path, video: Video) -> Path:
        """Choose where the folder of a finished video goes.

        Args:
            target: folder of the result files of a mode.
            part: another folder for this video alone, for families whose result files hold
                several videos.
            video: the video.
        """

    @abstractmethod
    def write_files(self, target: Path, videos: Iterable[StoredVideo]) -> Path:
        """Complete the result files, as the benchmark's server takes them.

        Args:
            target: existing folder of the result files of a mode.
            videos: all finished videos; they are read one by one.

        Returns:
            What `ScoreRequest.results` takes.
        """

    @abstractmethod
    def score(self, request: ScoreRequest) -> ScoreReport:
        """Score result files; errors as in `scoring.score_files`."""

    def check_truth(
        self,
        dataset: Dataset,
        videos: Sequence[Video],
        progress: Callable[[], object],
    ) -> dict[VideoId, str]:
        """Read the files of single videos that scoring will read, and find those at fault.

        Args:
            dataset: data set with truth; its annotation files were checked when it was opened.
            videos: those of its videos that are to be scored.
            progress: called after each frame.

        Returns:
            Why the truth of a video cannot be used, by its id.

        Raises:
            DatasetError: the files of the whole data set cannot be used.
        """
        return {}

    @abstractmethod
    def load_truth(self, dataset: Dataset, videos: Iterable[Video]) -> TruthLabels:
        """Open the truth of a data set that has one.

        Args:
            dataset: the data set.
            videos: those of its videos whose objects are counted.

        Raises:
            DatasetError: its files cannot be used.
        """

    @abstractmethod
    def load_results(self, folder: Path, dataset: Dataset) -> Labels:
        """Open result files of the videos of a data set, which may have no truth.

        Args:
            folder: folder of the result files of a mode.
            dataset: the data set.

        Raises:
            DatasetError: the files cannot be used.
        """

    def legend(self, has_truth: bool) -> list[str]:
        """List the sentences of the report on how to read the pictures."""
        return [SAME_OBJECTS] if has_truth else []


SAME_OBJECTS = (
    'A track has the number and the colour of the true object that it overlaps most; a track '
    'beyond the objects has a number of its own. Numbers hold within a video. Where an object '
    'goes on under another track, it is framed in white.'
)


def categories_by_id(dataset: Dataset) -> dict[int, Category]:
    """Index the categories of a data set by their ids."""
    return {category.category_id: category for category in dataset.categories}


def png_names(video: AnnotatedVideo) -> tuple[str, ...]:
    """Name the PNG of each annotated frame, for families that write one per frame."""
    return tuple(f'{PurePosixPath(name).stem}.png' for name in video.frame_names)
