"""The data of a run: its sources are opened once, and give each phase its batches."""

from __future__ import annotations

from torch.utils.data import Dataset

from videomt_ros.datasets.dataset import Category
from videomt_ros.datasets.synthetic import CLASS_NAMES
from videomt_ros.training.clips import Batch, SyntheticClips
from videomt_ros.training.data_settings import SYNTHETIC
from videomt_ros.training.labelled_clips import LabelledVideos, class_table, open_source
from videomt_ros.training.sampling import ClipSource, MixedClips, SceneClips, VideoClips
from videomt_ros.training.settings import Phase, TrainSettings


class Mixture:
    """The sources of a run, open."""

    def __init__(self, settings: TrainSettings) -> None:
        """Open all of them; reads annotations, and no image.

        Raises:
            ValueError: a data set has nothing that the network could learn; names the setting.
            DatasetError: the files of one cannot be used; names file and record of every fault.
        """
        self._settings = settings
        self._videos: dict[int, LabelledVideos] = {}
        self._scenes: dict[int, list[int | None]] = {}
        names = settings.network.class_names
        for number, source in enumerate(settings.data):
            where = f'data.{number}'
            if source.dataset == SYNTHETIC:
                shapes = [Category(k, name) for k, name in enumerate(CLASS_NAMES)]
                table = class_table(where, names, shapes, SYNTHETIC, source.renamed)
                self._scenes[number] = [table.get(k) for k in range(len(CLASS_NAMES))]
            else:
                self._videos[number] = open_source(where, source, names)

    def clips(self, phase: int) -> Dataset[Batch]:
        """Batches of a phase, by its place among the phases."""
        settings, part = self._settings, self._settings.phases[phase]
        # Phases of one seed would show the same clips, longer.
        seed = settings.seed + phase
        if not settings.data:
            return SyntheticClips(
                seed,
                part.steps,
                part.batch_size,
                part.clip_frames,
                settings.image_sizes,
                part.max_stride,
                part.supersample,
                part.hidden_frames,
            )
        return MixedClips(
            seed,
            part.steps,
            part.batch_size,
            part.clip_frames,
            part.max_stride,
            [self._source(number, part) for number in range(len(settings.data))],
            settings.network.size_divisor,
            # As near to the mean, which the network sees as 0, as whole numbers come.
            [min(255, max(0, round(value))) for value in settings.network.pixel_mean],
        )

    def _source(self, number: int, phase: Phase) -> ClipSource:
        settings = self._settings
        if number in self._videos:
            return VideoClips(self._videos[number], settings.augmentation)
        return SceneClips(
            self._scenes[number],
            settings.image_sizes,
            phase.supersample,
            settings.data[number].weight,
            phase.hidden_frames,
        )
