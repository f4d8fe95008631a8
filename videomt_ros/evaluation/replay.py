"""Outputs of a network that are recorded once and replayed to streams with other settings.

The network takes most of the time of an evaluation in the mode `live`. Without it, a stream with
another setting, or other constants of the tracker, is scored in a few milliseconds a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.datasets.categories import ClassMap, map_classes
from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.engines.engine import Engine
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import Family, StoredVideo
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.evaluation.scoring import score_results
from videomt_ros.inference import VideoStream
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.network import Outputs

_RECORDED = ('class_logits', 'mask_logits', 'embeddings')
"""Fields of Outputs that are recorded, in its order."""


@dataclass(frozen=True)
class RecordedVideo:
    """The outputs of a network for all frames of a video, in files."""

    video: Video
    size: tuple[int, int]
    """(height, width) of the images in pixels."""
    moments: list[tuple[int | None, int]]
    """Index among the annotated frames, and stamp in nanoseconds, of each of T frames."""
    outputs: dict[str, NDArray[np.float32]]
    """Fields of Outputs by name, (T, Q, ...), mapped into memory."""


class RecordedNetwork:
    """An engine that answers the frames of one stream with recorded outputs, in their order."""

    engine_name = 'recorded'
    device = torch.device('cpu')
    dtype = torch.float32

    def __init__(self, config: NetworkConfig, recorded: RecordedVideo) -> None:
        """Start before the first frame.

        Args:
            config: configuration of the network that was recorded.
            recorded: the outputs.
        """
        self.config = config
        self._outputs, self._next = recorded.outputs, 0

    def digest(self) -> str:
        """Return a name in place of a hash, since there are no weights."""
        return self.engine_name

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return a state that holds nothing."""
        return torch.zeros(batch_size, self.config.num_queries, 1)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Answer with the next frame, whatever the image."""
        t, self._next = self._next, self._next + 1
        # Copied, since tensors of files that are read only would warn.
        class_logits, mask_logits, embeddings = (
            torch.tensor(self._outputs[name][t][None]) for name in _RECORDED
        )
        return Outputs(class_logits, mask_logits, embeddings), state


class Recording:
    """A data set with truth, as one network sees it."""

    def __init__(self, dataset: Dataset, net: Engine, folder: Path) -> None:
        """Run the network over all videos.

        Args:
            dataset: data set with truth.
            net: network in evaluation mode.
            folder: existing folder for the outputs, 4 bytes a number.

        Raises:
            ValueError: network and data set have no class in common, or the data set has no truth
                or no objects with identities.
        """
        self.dataset, self._config = dataset, net.config
        self._family: Family = family_of(dataset.family)
        if not dataset.truth or not self._family.has_tracks:
            lacking = 'identities' if dataset.truth else 'truth'
            raise ValueError(
                'Expected a data set of instances or panoptic segments with truth, '
                f'{dataset.name} has no {lacking}.'
            )
        self._classes: ClassMap = map_classes(
            net.config.class_names, dataset.categories, dataset.name
        )
        self._videos = [
            _record(video, net, self._family, folder / f'{number:05d}')
            for number, video in enumerate(dataset.videos)
        ]

    @property
    def num_frames(self) -> int:
        """Number of frames of all videos."""
        return sum(len(recorded.moments) for recorded in self._videos)

    def score(self, constants: TrackerConstants, settings: Mapping[str, Any]) -> ScoreReport:
        """Replay all videos to streams, and score the result as the mode `live` does.

        Args:
            constants: constants of the tracker.
            settings: fields of StreamSettings that differ from the defaults.
        """
        with TemporaryDirectory() as scratch:
            target = Path(scratch, 'live')
            target.mkdir()
            stored = [
                self._replay(recorded, constants, settings, target, Path(scratch, str(number)))
                for number, recorded in enumerate(self._videos)
            ]
            results = self._family.write_files(target, stored)
            return score_results(self.dataset, self.dataset.videos, results)

    @torch.inference_mode()
    def _replay(
        self,
        recorded: RecordedVideo,
        constants: TrackerConstants,
        settings: Mapping[str, Any],
        target: Path,
        part: Path,
    ) -> StoredVideo:
        """Replay one video, and store its results as the family does."""
        video = recorded.video
        stream = VideoStream(
            RecordedNetwork(self._config, recorded),
            self._family.task,
            constants=constants,
            **settings,
        )
        folder = self._family.video_folder(target, part, video)
        results = self._family.new_results(folder, video, self.dataset.categories)
        live = self._family.live_video(results, self._classes)
        blank = np.zeros((*recorded.size, 3), np.uint8)
        for index, stamp_ns in recorded.moments:
            segments = stream.push(blank, stamp_ns)
            if index is not None:
                live.add(index, segments)
        return StoredVideo(video, folder, live.finish())


@torch.inference_mode()
def _record(video: Video, net: Engine, family: Family, folder: Path) -> RecordedVideo:
    """Run the network over a video in a stream, which starts it anew where any stream would."""
    stream = VideoStream(net, family.task)
    moments: list[tuple[int | None, int]] = []
    size, shapes = video.size, {}
    folder.mkdir()
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open('wb')) for name in _RECORDED}
        for frame in video.frames():
            stream.push(frame.image, frame.stamp_ns)
            height, width = frame.image.shape[:2]
            size = (height, width)
            moments.append((frame.index, frame.stamp_ns))
            assert stream.outputs is not None
            for name, file in files.items():
                values = getattr(stream.outputs, name)[0].float().cpu().numpy()
                shapes[name] = values.shape
                file.write(values.tobytes())
    if not moments:
        raise ValueError(f'Expected a video with frames, {video.name} has none.')
    outputs: dict[str, NDArray[np.float32]] = {
        name: np.memmap(folder / name, np.float32, 'r', shape=(len(moments), *shape))
        for name, shape in shapes.items()
    }
    return RecordedVideo(video, size, moments, outputs)
