"""Summary of a demo run: counts, latency, tracks, and agreement with a synthetic truth.

Letters: H W image size in pixels, n visible things and m tracks in a frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.datasets.recording import Recording
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.evaluation.metrics.clear import THRESHOLD, clear
from videomt_ros.evaluation.metrics.id_pairs import count_pairs
from videomt_ros.evaluation.metrics.overlap import FrameOverlap, TrackSequence
from videomt_ros.evaluation.metrics.semantic import SemanticQuality

VISIBLE_SHARE = 0.002
"""A true thing is scored in the frames in which it has at least this share of the pixels."""
_UNKNOWN = len(ALL_NAMES)
"""Class of pixels and tracks whose class is none of those of a scene."""


@dataclass(frozen=True)
class ThingScores:
    """Agreement of tracks with the true things of a scene. A share of nothing is nan."""

    num_frames: int
    """Number of frames that were compared."""
    num_visible: int
    """Number of visible true things, summed over the frames."""
    num_found: int
    """Number of visible true things that a track matches with an IoU of at least 1/2."""
    num_switches: int
    """Number of identity switches, as in `metrics.clear` but over all classes together."""
    mean_iou: float
    """Mean over the visible things of the IoU with the matched track; 0 where there is none."""
    classes_right: float
    """Share of the things found whose track has the true class."""

    @property
    def found(self) -> float:
        """Share of the visible things that are found."""
        return _share(self.num_found, self.num_visible)

    @property
    def switches_per_100_frames(self) -> float:
        """Number of identity switches in 100 frames of video."""
        return 100 * _share(self.num_switches, self.num_frames)


@dataclass(frozen=True)
class DemoReport:
    """Counts, latencies and scores of a demo run."""

    sent: int
    """Number of frames that the camera published."""
    received: int
    """Number of these frames that the segmenter received from the middleware."""
    processed: int
    """Number of these frames whose results it published."""
    dropped: int
    """Number of frames that it left out because a newer one had arrived."""
    rejected: int
    """Number of frames that it could not use, or on which inference failed."""
    kept: int
    """Number of frames whose list of tracks arrived at the recorder."""
    unknown: int
    """Number of track lists for images that the camera did not report as sent."""
    latency_p50_ms: float
    """Median time from the image's stamp to the arrival of its tracks at the recorder."""
    latency_p95_ms: float
    """95th percentile of the same time."""
    sent_hz: float
    """Frames per second that the camera published; nan for one frame."""
    processed_hz: float
    """Results per second that arrived at the recorder; nan for one."""
    track_ids: tuple[int, ...]
    """Ids of all tracks that had pixels."""
    scores: ThingScores | None
    """Agreement of tracks with the true things in the frames kept; None without a truth."""
    stuff_iou: float | None
    """Mean IoU of sky, ground and walls over all pixels of these frames, of those that are ever in
    view; None if the truth has no stuff."""

    def table(self) -> str:
        """Format the report, one figure per line."""
        lost = self.sent - self.received
        rows = [
            ('frames sent', f'{self.sent}', ''),
            ('received', f'{self.received}', f'{lost} lost on the way' if lost else ''),
            ('processed', f'{self.processed}', f'{self.kept} arrived at the recorder'),
            ('dropped', f'{self.dropped}', 'replaced by a newer frame'),
            ('rejected', f'{self.rejected}', 'unusable, or inference failed'),
            ('latency p50', f'{self.latency_p50_ms:.0f} ms', 'image stamp to arrival of result'),
            ('latency p95', f'{self.latency_p95_ms:.0f} ms', ''),
            ('tracks seen', f'{len(self.track_ids)}', ''),
        ]
        if self.unknown:
            rows.append(('of others', f'{self.unknown}', 'results of no image that was sent'))
        if self.scores is not None:
            scores = self.scores
            rows += [
                ('mean IoU', f'{scores.mean_iou:.2f}', 'with the truth, visible objects'),
                ('objects found', f'{scores.found:.0%}', 'IoU of 0.5 or more'),
                (
                    'id switches',
                    f'{scores.switches_per_100_frames:.1f}',
                    f'per 100 frames; {scores.num_switches} in {scores.num_frames}',
                ),
                ('classes right', f'{scores.classes_right:.0%}', 'of the objects found'),
            ]
        if self.stuff_iou is not None:
            rows.append(('stuff mIoU', f'{self.stuff_iou:.2f}', 'of sky, ground and walls'))
        return '\n'.join(
            f'  {name:<14}{"-" if value.startswith("nan") else value:>8}   {note}'.rstrip()
            for name, value, note in rows
        )


def build_report(
    recording: Recording,
    sent: Mapping[int, int],
    health: Mapping[str, str],
    scene: Scene | None,
) -> DemoReport:
    """Sum up what camera, segmenter and recorder report.

    Args:
        recording: what has arrived at the recorder.
        sent: frame number in the source of every frame that was sent, by stamp.
        health: the segmenter's last report on /diagnostics.
        scene: the drawn scene that was the source, for its truth; None for other sources.
    """
    latencies_ms: list[float] = []
    arrivals_ns: list[int] = []
    track_ids: set[int] = set()
    agreement = None if scene is None else _Agreement(scene)
    unknown = 0
    for record in recording.tracks():
        stamp_ns = record['stamp_ns']
        if stamp_ns not in sent:
            unknown += 1
            continue
        latencies_ms.append((record['received_ns'] - stamp_ns) / 1e6)
        arrivals_ns.append(record['received_ns'])
        seen = [track for track in record['tracks'] if track['area']]
        track_ids.update(track['id'] for track in seen)
        ids = recording.ids(stamp_ns)
        if agreement is not None and ids is not None:
            agreement.update(sent[stamp_ns], ids, seen)
    p50, p95 = np.percentile(latencies_ms, (50, 95)) if latencies_ms else (np.nan, np.nan)
    return DemoReport(
        sent=len(sent),
        received=int(health['received']),
        processed=int(health['processed']),
        dropped=int(health['dropped']),
        rejected=int(health['rejected']) + int(health['failed']),
        kept=len(latencies_ms),
        unknown=unknown,
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        sent_hz=_rate_hz(sorted(sent)),
        processed_hz=_rate_hz(sorted(arrivals_ns)),
        track_ids=tuple(sorted(track_ids)),
        scores=None if agreement is None else agreement.thing_scores(),
        stuff_iou=None if agreement is None else agreement.stuff_iou(),
    )


class _Agreement:
    """Compares tracks with a scene: things one by one, stuff class by class."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._overlaps: list[FrameOverlap] = []
        self._same_class: list[FrameOverlap] = []
        """Overlaps with an IoU of 0 for pairs whose classes differ."""
        self._semantic = SemanticQuality(len(ALL_NAMES) + 1)

    def update(
        self, number: int, ids: NDArray[np.uint16], tracks: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add a frame.

        Args:
            number: number of the frame in the scene.
            ids: (H, W), track of each pixel, 0 none.
            tracks: the tracks in `ids`, as the recorder stores them.
        """
        true_ids = self._scene.frame(number)[1]
        true_classes = self._scene.class_of
        # By name: a model that was trained on other data too has another order.
        number_of = {name: k for k, name in enumerate(ALL_NAMES)}
        classes = {track['id']: number_of.get(track['class_name'], _UNKNOWN) for track in tracks}
        true_things = [i for i, k in true_classes.items() if k < len(CLASS_NAMES)]
        things = [track['id'] for track in tracks if track['is_thing']]
        overlap = _overlap(true_ids, true_things, ids, things)
        same = np.equal.outer(
            [true_classes[i] for i in overlap.truth_ids.tolist()],
            [classes[i] for i in overlap.track_ids.tolist()],
        )
        self._overlaps.append(overlap)
        self._same_class.append(replace(overlap, iou=overlap.iou * same))
        if self._scene.has_stuff:
            self._semantic.update(_semantic(true_ids, true_classes) + 1, _semantic(ids, classes))

    def thing_scores(self) -> ThingScores:
        """Compute the scores of the things over all frames so far."""
        # One sequence for all classes: a track of another class still finds a thing.
        any_class, same_class = (
            clear([TrackSequence('scene', 0, frames)])
            for frames in (self._overlaps, self._same_class)
        )
        num_visible = any_class.num_matches + any_class.num_missed
        return ThingScores(
            num_frames=len(self._overlaps),
            num_visible=num_visible,
            num_found=any_class.num_matches,
            num_switches=len(any_class.switches),
            mean_iou=_share(sum(map(_matched_iou, self._overlaps)), num_visible),
            classes_right=_share(same_class.num_matches, any_class.num_matches),
        )

    def stuff_iou(self) -> float | None:
        """Mean IoU of the stuff that is ever in view; None if the truth has none."""
        per_class = self._semantic.result().per_class
        found = [per_class[k]['IoU'] for k in range(len(CLASS_NAMES), len(ALL_NAMES))]
        seen = [iou for iou in found if iou is not None]
        return float(np.mean(seen)) if seen else None


def _overlap(
    true_ids: NDArray[np.uint16],
    true_things: Sequence[int],
    ids: NDArray[np.uint16],
    things: Sequence[int],
) -> FrameOverlap:
    """Compare the visible true things of a frame with its tracks of things.

    Args:
        true_ids: (H, W), identity of each pixel, 0 background.
        true_things: identities that are things.
        ids: (H, W), track of each pixel, 0 none.
        things: tracks that are things.

    Returns:
        The IoU (n, m) of the things that have at least VISIBLE_SHARE of the pixels.
    """
    pairs = count_pairs(true_ids, ids)
    truth, rows = np.unique(pairs.true_ids, return_inverse=True)
    tracks, columns = np.unique(pairs.pred_ids, return_inverse=True)
    shared = np.zeros((len(truth), len(tracks)), np.int64)
    shared[rows, columns] = pairs.areas
    true_areas = shared.sum(axis=1)
    union = true_areas[:, None] + shared.sum(axis=0) - shared
    visible = np.isin(truth, true_things) & (true_areas >= VISIBLE_SHARE * true_ids.size)
    kept = np.isin(tracks, things)
    return FrameOverlap(truth[visible], tracks[kept], (shared / union)[visible][:, kept])


def _matched_iou(overlap: FrameOverlap) -> float:
    """Sum the IoU over the pairs of a one-to-one matching of things and tracks.

    As many things as possible are matched with an IoU of 1/2 or more, and among such matchings
    the one with the largest sum is taken.
    """
    iou = overlap.iou
    # The plain sum of IoU may prefer two poor pairs to a good one.
    weight = iou + (iou >= THRESHOLD) * (len(iou) + 1)
    return float(iou[linear_sum_assignment(weight, maximize=True)].sum())


def _rate_hz(times_ns: Sequence[int]) -> float:
    """Compute the rate of events from their times, which rise; nan where there is none."""
    span_s = (times_ns[-1] - times_ns[0]) * 1e-9 if times_ns else 0.0
    return (len(times_ns) - 1) / span_s if span_s > 0 else float('nan')


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float('nan')


def _semantic(ids: NDArray[np.uint16], classes: Mapping[int, int]) -> NDArray[np.uint8]:
    """Return the class of each pixel, (H, W)."""
    table = np.full(2**16, _UNKNOWN, np.uint8)
    for identity, class_id in classes.items():
        table[identity] = class_id
    return table[ids]


def write_tracks(recording: Recording, sent: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the lists of tracks as JSON lines, each with the origin of its image.

    A line holds `frame` (its number in the source), `stamp_ns` (when it was published),
    `source_ns` (its stamp or time in the source), `received_ns` (when the tracks arrived),
    `frame_id`, `model`, `height`, `width` and `tracks`, with every field of `msg/Track.msg`;
    `mask` is what `pycocotools.mask.decode` takes, null where there is none. Tracks of images that
    are not in `sent` are left out.
    """
    by_stamp = {frame['stamp_ns']: frame for frame in sent}
    with path.open('w', encoding='utf-8') as file:
        for record in recording.tracks():
            frame = by_stamp.get(record['stamp_ns'])
            if frame is None:
                continue
            line = {'frame': frame['number'], 'source_ns': frame['source_ns'], **record}
            file.write(json.dumps(line) + '\n')
