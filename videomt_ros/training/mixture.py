"""The data of a run: its sources are opened once, and give the clips of each phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.datasets.synthetic.stuff import STUFF_NAMES
from videomt_ros.training.labelled_clips import LabelledVideos, open_source
from videomt_ros.training.run_settings import SYNTHETIC, Phase, TrainSettings
from videomt_ros.training.sampling import ClipSource, VideoClips
from videomt_ros.training.scene_clips import SceneClips, scene_table


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
        if not settings.data:
            # Shapes alone are the network's classes whatever their names; stuff goes by its name.
            has_stuff = not set(STUFF_NAMES).isdisjoint(names)
            self._scenes[0] = (
                scene_table('network', names) if has_stuff else [*range(len(CLASS_NAMES))]
            )
        for number, source in enumerate(settings.data):
            where = f'data.{number}'
            if source.dataset == SYNTHETIC:
                self._scenes[number] = scene_table(where, names, source.renamed)
            else:
                self._videos[number] = open_source(where, source, names)

    def sources(self, phase: Phase, image_sizes: Sequence[tuple[int, int]]) -> list[ClipSource]:
        """Where the clips of a phase come from.

        Args:
            phase: of the run.
            image_sizes: (height, width) of synthetic scenes, one chosen at random per clip.
        """
        settings = self._settings
        return [
            VideoClips(self._videos[number], settings.augmentation)
            if number in self._videos
            else SceneClips(
                self._scenes[number],
                image_sizes,
                phase.supersample,
                settings.data[number].weight if settings.data else 1.0,
                phase.hidden_frames,
            )
            for number in range(max(1, len(settings.data)))
        ]


def check_folders(settings: TrainSettings) -> None:
    """See that all data sets of a run have a folder, before any of them is read.

    Raises:
        ValueError: one has none; names its setting.
    """
    roots = {f'data.{number}.root': source.root for number, source in enumerate(settings.data)}
    if settings.validation is not None:
        roots['validation.root'] = settings.validation.root
    for name, root in roots.items():
        if root and not Path(root).is_dir():
            raise ValueError(
                f'Expected {name} to be the folder of a data set, there is none at '
                f'{Path(root).absolute()}. Set {name}=...'
            )
