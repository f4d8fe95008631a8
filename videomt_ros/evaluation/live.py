"""What a live run amounts to: counts, latency, tracks, and agreement with a synthetic truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.recording import Recording
from videomt_ros.datasets.synthetic import Scene
from videomt_ros.evaluation.tracking import TrackQuality, TrackScores


@dataclass(frozen=True)
class LiveReport:
    """The result of a live run."""

    sent: int
    """Frames that the camera published."""
    received: int
    """Of these, frames that the segmenter took from the middleware."""
    processed: int
    """Of these, frames whose results it published."""
    dropped: int
    """Frames that it left out because a newer one had come."""
    rejected: int
    """Frames that it could not use, or on which inference failed."""
    kept: int
    """Frames whose list of tracks arrived at the recorder."""
    unknown: int
    """Lists of tracks of images that the camera did not report as sent; in no other figure."""
    latency_p50_ms: float
    """Median time from the image's stamp to the arrival of its tracks at the recorder."""
    latency_p95_ms: float
    track_ids: tuple[int, ...]
    """Every id that was seen with pixels."""
    scores: TrackScores | None
    """Agreement with the truth, over the frames kept; None where there is no truth."""

    def table(self) -> str:
        """The report for a person, one figure a line."""
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
        return '\n'.join(
            f'  {name:<14}{"-" if value.startswith("nan") else value:>8}   {note}'.rstrip()
            for name, value, note in rows
        )


def build_report(
    recording: Recording,
    sent: Mapping[int, int],
    health: Mapping[str, str],
    scene: Scene | None,
) -> LiveReport:
    """Put together what camera, segmenter and recorder know.

    Args:
        recording: what arrived.
        sent: frame number in the source by stamp, of every frame published.
        health: the segmenter's last report on /diagnostics.
        scene: where the source was one, for the truth.
    """
    latencies_ms: list[float] = []
    track_ids: set[int] = set()
    quality = TrackQuality()
    unknown = 0
    for record in recording.tracks():
        stamp_ns = record['stamp_ns']
        if stamp_ns not in sent:
            unknown += 1
            continue
        latencies_ms.append((record['received_ns'] - stamp_ns) / 1e6)
        seen = [track for track in record['tracks'] if track['area']]
        track_ids.update(track['id'] for track in seen)
        ids = recording.ids(stamp_ns)
        if scene is not None and ids is not None:
            true_ids = scene.frame(sent[stamp_ns])[1]
            classes = {track['id']: track['class_id'] for track in seen}
            quality.update(true_ids, ids, scene.class_of, classes)
    p50, p95 = np.percentile(latencies_ms, (50, 95)) if latencies_ms else (np.nan, np.nan)
    return LiveReport(
        sent=len(sent),
        received=int(health['received']),
        processed=int(health['processed']),
        dropped=int(health['dropped']),
        rejected=int(health['rejected']) + int(health['failed']),
        kept=len(latencies_ms),
        unknown=unknown,
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        track_ids=tuple(sorted(track_ids)),
        scores=None if scene is None else quality.result(),
    )


def write_tracks(recording: Recording, sent: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the lists of tracks as JSON lines, each beside where its image came from.

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
