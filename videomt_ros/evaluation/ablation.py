"""What each constant of the tracker is worth: dropped, halved and doubled, on recorded outputs.

The scenes are kept for this: their seeds serve neither training nor the choice of any constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.datasets.synthetic.writing import FORMATS
from videomt_ros.engines.engine import Engine
from videomt_ros.evaluation.replay import Recording
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tracker_constants import TrackerConstants

FIRST_SEED = 800_000
"""Seed of the first scene of the first kind; each kind has seeds of its own."""
_SEEDS = 10_000
"""Number of seeds that each kind of scenes has."""
SWITCHES = 'IDSW/100'
"""Name of the figure of identity switches per 100 frames; all other figures are in percent."""
_FIGURES = ('AP', 'VPQ', 'IDF1', 'HOTA', 'AssA', SWITCHES)


class SceneKind(NamedTuple):
    """One kind of drawn scenes."""

    family: str
    """Family of the data set that is written, a name in `FORMATS`."""
    meaning: str
    """What is hard about them, in a few words."""
    options: Mapping[str, Any]
    """Arguments of `Scene`."""


KINDS = {
    'open': SceneKind('ytvis', '3 to 6 shapes, nothing hides them but each other', {}),
    'wall': SceneKind(
        'ytvis', 'a wall hides each shape for 10 to 25 frames', {'hidden_frames': (10, 25)}
    ),
    'crowd': SceneKind('ytvis', '9 shapes that overlap much', {'num_objects': 9}),
    'stuff': SceneKind('vipseg', 'sky, ground and walls have classes, panoptic', {'stuff': True}),
}
"""Kinds of scenes by name."""


class Tuned(NamedTuple):
    """A number that decides how the tracker associates."""

    name: str
    default: float
    off: float
    """Value with which the rule that it belongs to has the least effect."""
    limit: float
    """Largest value that makes sense."""
    is_setting: bool = False
    """Whether it is a field of StreamSettings, and not one of TrackerConstants."""

    def changes(self) -> Iterator[tuple[str, float]]:
        """Name the changes and list their values, each value once."""
        tried = {self.default}
        for change, value in (
            ('off', self.off),
            ('half', self.default / 2),
            ('double', min(2 * self.default, self.limit)),
        ):
            kept = round(value) if isinstance(self.default, int) else value
            if kept not in tried:
                tried.add(kept)
                yield change, kept


TUNED = (
    Tuned('same_object_iou', StreamSettings.same_object_iou, 1.0, 1.0, is_setting=True),
    Tuned('jump_sizes', StreamSettings.jump_sizes, 0.0, 100.0, is_setting=True),
    *(
        Tuned(
            item.name,
            getattr(TrackerConstants, item.name),
            item.metadata['off'],
            item.metadata['limit'],
        )
        for item in fields(TrackerConstants)
    ),
)
"""All numbers that are varied."""


class Variant(NamedTuple):
    """A tracker that differs from the default in one thing."""

    subject: str
    """Name of the constant or of the setting."""
    change: str
    """What was done to it: off, half, double; or the value of the setting."""
    constants: TrackerConstants = TrackerConstants()
    settings: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Changes:
    """The figures of a variant on several sets of videos."""

    variant: Variant
    figures: list[dict[str, float]]
    """Figures by name, for each set; in percent, or per 100 frames."""
    changes: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Mean over the sets of the difference to the default, and its standard deviation."""


def variants(names: Sequence[str] = ()) -> list[Variant]:
    """List the default, the association `slots`, and the changes of each constant.

    A value beyond the limit of a constant becomes the limit; one that is there already is left
    out.

    Args:
        names: constants to change, of `TUNED`; empty: all.

    Raises:
        ValueError: there is no such constant.
    """
    known = {item.name: item for item in TUNED}
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f'Expected constants out of {", ".join(known)}, got {", ".join(unknown)}.'
        )
    listed = [
        Variant('default', ''),
        Variant('association', 'slots', settings={'association': 'slots'}),
    ]
    for name in names or known:
        for change, value in known[name].changes():
            changed: dict[str, Any] = {name: value}
            if known[name].is_setting:
                listed.append(Variant(name, change, settings=changed))
            else:
                listed.append(Variant(name, change, TrackerConstants(**changed)))
    return listed


def draw_scenes(
    kind: str, out: Path, num_videos: int, num_frames: int, size: tuple[int, int]
) -> Dataset:
    """Write scenes of a kind as a data set with truth.

    Args:
        kind: name in `KINDS`.
        out: existing folder.
        num_videos: number of scenes.
        num_frames: frames of each.
        size: (height, width) of the images in pixels.
    """
    drawn = KINDS[kind]
    first = FIRST_SEED + _SEEDS * list(KINDS).index(kind)
    scenes = [
        Scene(first + n, *size, num_frames=num_frames, **drawn.options) for n in range(num_videos)
    ]
    written = FORMATS[drawn.family]
    written.write(out, scenes, lambda number: None)
    return open_dataset(written.benchmark, out)


def split_videos(dataset: Dataset, num_sets: int) -> list[Dataset]:
    """Split the videos of a data set into sets of about equal size, in their order.

    Raises:
        ValueError: there are fewer videos than sets.
    """
    videos = list(dataset.videos)
    if len(videos) < num_sets:
        raise ValueError(
            f'Expected {num_sets} or more videos for {num_sets} sets, {dataset.name} has '
            f'{len(videos)}.'
        )
    edges = [k * len(videos) // num_sets for k in range(num_sets + 1)]
    return [
        replace(dataset, videos=videos[start:end])
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def ablate(
    sets: Sequence[Dataset],
    net: Engine,
    tried: Sequence[Variant],
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Changes]:
    """Score variants on sets of videos, the network being run once.

    Args:
        sets: data sets with truth.
        net: network in evaluation mode.
        tried: variants, the default first.
        settings: fields of StreamSettings that all variants have in common.
        progress: called after a variant was scored on a set.

    Yields:
        The figures of each variant.
    """
    with TemporaryDirectory() as folder:
        recordings = []
        for number, dataset in enumerate(sets):
            part = Path(folder, str(number))
            part.mkdir()
            recordings.append(Recording(dataset, net, part))
        default: list[dict[str, float]] = []
        for variant in tried:
            figures = []
            for recording in recordings:
                report = recording.score(
                    variant.constants, {**(settings or {}), **variant.settings}
                )
                figures.append(_percent(report.figures, recording.num_frames))
                progress()
            default = default or figures
            yield Changes(variant, figures, _differences(default, figures))


def _percent(figures: Mapping[str, float | None], num_frames: int) -> dict[str, float]:
    """Pick the figures of interest."""
    switches = figures.get('IDSW') or 0.0
    found = {**figures, SWITCHES: switches / num_frames}
    return {name: 100.0 * value for name in _FIGURES if (value := found.get(name)) is not None}


def _differences(
    default: Sequence[Mapping[str, float]], figures: Sequence[Mapping[str, float]]
) -> dict[str, tuple[float, float]]:
    """Compare the figures of a variant with those of the default, set by set."""
    compared = {}
    for name in default[0]:
        pairs = zip(default, figures, strict=True)
        values = [b[name] - a[name] for a, b in pairs if name in a and name in b]
        if values:
            compared[name] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
    return compared
