"""Result of scoring, as plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from videomt_ros.evaluation.figures import COUNTS, Figures
from videomt_ros.evaluation.metrics.confusion import ClassConfusion


@dataclass(frozen=True)
class ScoreReport:
    """Scores of one file or folder of results."""

    family: str
    """Name of the family that was scored."""
    figures: Figures
    """The figures of the family, in their order."""
    per_class: list[dict[str, Any]]
    """One entry per category in the order of the truth: `category_id`, `name`, `is_thing`, and its
    figures, for things also those of tracking."""
    per_video: dict[str, dict[str, Any]]
    """One entry per video, by its id as text: `name`, and `HOTA`, `IDF1`, `IDSW`, or `mIoU` for
    VSPW."""
    curves: dict[str, Any] = field(default_factory=dict)
    """Precision over recall, for ytvis: 101 levels of `recall`, and `precision` there as the mean
    over the classes, at IoU '0.5', '0.75' and 'mean' over all thresholds. Empty if no class has an
    object that counts."""
    switches: list[dict[str, Any]] = field(default_factory=list)
    """One entry per identity switch: `video_id`, `frame` from 0, `truth_id`, `from` and `to` (ids
    of tracks) and `category_id`."""
    confusion: dict[str, Any] = field(default_factory=dict)
    """What each true class was predicted as: `unit`, `category_ids` and `counts` of
    `metrics.confusion.ClassConfusion`."""
    notes: list[str] = field(default_factory=list)
    """Remarks that a reader of the figures needs, such as on what was missing or ignored."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """One entry per video with files that cannot be used: `video` (its name), `side` and `error`.
    With the side 'truth' it is left out of the figures, with 'results' it counts as missed."""
    left_out: list[str] = field(default_factory=list)
    """One line per bad record of truth or results that was left out; see `Dataset.left_out`."""
    parts: dict[str, Figures] = field(default_factory=dict)
    """The figures of each truth file by its name, if there are several."""

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values without NaN; the key of the family is `benchmark`."""
        content = asdict(self)
        return {'benchmark': content.pop('family'), **content}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoreReport:
        """Read what `to_json` returns; other fields are ignored.

        Raises:
            ValueError: a field is missing.
        """
        keys = {one.name: one.name for one in fields(cls)} | {'family': 'benchmark'}
        if missing := [key for key in keys.values() if key not in content]:
            raise ValueError(f'Expected a score report, but it lacks {", ".join(missing)}.')
        return cls(**{name: content[key] for name, key in keys.items()})


def mean_report(reports: Mapping[str, ScoreReport]) -> ScoreReport:
    """Combine the reports of several truth files, as YouTube-VIS 2022 does.

    Figures are means, undefined if one of them is; counts are sums.

    Args:
        reports: at least one report by the name of its file, all of one family.
    """
    all_reports = list(reports.values())
    per_class: dict[int, list[dict[str, Any]]] = {}
    for report in all_reports:
        for entry in report.per_class:
            per_class.setdefault(entry['category_id'], []).append(entry)
    return ScoreReport(
        all_reports[0].family,
        _mean_figures([report.figures for report in all_reports]),
        per_class=[
            entries[0] | _mean_figures(entries, skip=('category_id', 'name', 'is_thing'))
            for entries in per_class.values()
        ],
        per_video={
            video: entry for report in all_reports for video, entry in report.per_video.items()
        },
        curves=_mean_curves([report.curves for report in all_reports]),
        switches=[switch for report in all_reports for switch in report.switches],
        confusion=_sum_of_confusions([report.confusion for report in all_reports]),
        failures=[failure for report in all_reports for failure in report.failures],
        notes=[f'{name}: {note}' for name, report in reports.items() for note in report.notes],
        parts={name: report.figures for name, report in reports.items()},
    )


def _mean_figures(many: Sequence[Mapping[str, Any]], skip: Iterable[str] = ()) -> Figures:
    result: Figures = {}
    for name in many[0]:
        if name in skip:
            continue
        values = [one.get(name) for one in many]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            result[name] = None
        else:
            result[name] = sum(known) if name in COUNTS else sum(known) / len(known)
    return result


def _sum_of_confusions(many: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not all(many):
        return {}
    first, *others = map(ClassConfusion.from_json, many)
    return sum(others, start=first).to_json()


def _mean_curves(many: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not all(many):
        return {}
    return {
        'recall': many[0]['recall'],
        'precision': {
            name: [
                sum(values) / len(values)
                for values in zip(*(one['precision'][name] for one in many), strict=True)
            ]
            for name in many[0]['precision']
        },
    }
