"""`videomt demo`: camera, segmenter and recorder as three processes that talk over ROS 2."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videomt_ros.datasets.source import Source
    from videomt_ros.ros.pipeline import Pipeline

HELP = 'segment and track a scene, video, webcam or bag, live over ROS 2'

_SCENE_FRAMES = 300
_FILE_SECONDS, _LIVE_SECONDS = 60.0, 20.0
_RESULTS = ('overlay.mp4', 'contact_sheet.png', 'tracks.jsonl')
_READY_TIMEOUT_S = 300.0
"""A large model may have to be downloaded first."""
_IDLE_S, _BUSY_S = 4.0, 120.0
"""How long to wait for results that do not come: where none is due any more, and where one is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        '--source',
        default='synthetic',
        help="'synthetic', a video file, the index of a webcam, or a bag (rosbag2 folder, .mcap, "
        '.db3); default synthetic',
    )
    parser.add_argument('--topic', default='', help='image topic of a bag that has several')
    parser.add_argument(
        '--model', default='demo', help='whatever load_model takes; default the demo model'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('out/demo'), help='folder for the results'
    )
    # Six objects of five classes, of which some are born late, and some leave and return.
    parser.add_argument('--seed', type=_natural, default=29, help='of the synthetic scene')
    parser.add_argument(
        '--frames', type=_natural, default=0, help='end after so many; default: no limit'
    )
    parser.add_argument(
        '--seconds',
        type=_positive,
        help=f'end after so much of the source; default {_FILE_SECONDS:.0f}, '
        f'of a webcam {_LIVE_SECONDS:.0f}',
    )
    parser.add_argument(
        '--rate', type=_positive, default=0.0, help="frames in a second; default the source's own"
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0 once the results are written, also after a Ctrl-C that ends a webcam.
    """
    from videomt_ros.datasets.opening import SyntheticSource, open_source
    from videomt_ros.evaluation.live import build_report

    # A process that is told to end takes its children along, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    source = open_source(args.source, args.topic, args.seed, args.frames or _SCENE_FRAMES)
    args.out.mkdir(parents=True, exist_ok=True)
    # In the folder itself, so that complete results are moved into place at once.
    with tempfile.TemporaryDirectory(prefix='.run-', dir=args.out) as scratch:
        run = _LiveRun(args, source, Path(scratch))
        run.execute()
        for note in run.notes:
            print(f'Note: {note}')
        print('Writing the results', flush=True)
        sent = {frame['stamp_ns']: frame['number'] for frame in run.sent}
        scene = source.scene if isinstance(source, SyntheticSource) else None
        report = build_report(run.recording, sent, run.health, scene)
        _write_results(args.out, run, f'{source.description}, model {args.model}')
    print(report.table())
    print(f'Results: {", ".join(str(args.out / name) for name in _RESULTS)}')
    return 0


class _LiveRun:
    """One run of the three processes, from their start to the last result."""

    def __init__(self, args: argparse.Namespace, source: Source, scratch: Path) -> None:
        from videomt_ros.datasets.recording import Recording

        self._args, self._source, self._scratch = args, source, scratch
        self.sent: list[dict[str, Any]] = []
        """Events of the camera, one per frame."""
        self.health: dict[str, str] = {}
        """The segmenter's last report."""
        self.notes: list[str] = []
        self.recording = Recording(scratch / 'recording')
        self._kept = 0
        self._is_ready = self._is_over = False
        self._fps = args.rate or source.fps
        self._seconds = args.seconds or 0.0
        if not self._seconds and args.source != 'synthetic':
            self._seconds = _LIVE_SECONDS if source.is_live else _FILE_SECONDS

    def execute(self) -> None:
        """Start, wait for the end, and stop everything.

        Raises:
            ValueError: a process failed, or no result came.
        """
        from videomt_ros.ros.pipeline import Pipeline

        args = self._args
        with Pipeline(self._scratch) as pipeline:
            print(
                f'Loading model {args.model} (to listen in: ROS_DOMAIN_ID={pipeline.domain_id}, '
                f'topics {pipeline.namespace}/...)',
                flush=True,
            )
            folder = str(self.recording.folder)
            pipeline.start(
                'recorder',
                'videomt_ros.ros.recorder',
                ['--folder', folder, '--fps', str(self._fps)],
            )
            pipeline.start(
                'segmenter',
                'videomt_ros.ros.node',
                parameters={
                    'model': args.model,
                    'input_reliability': 'reliable',
                    'input_depth': 10,
                },
            )
            self._wait_until_ready(pipeline)
            print(f'Playing {self._what_is_played()}', flush=True)
            pipeline.start('camera', 'videomt_ros.ros.camera', self._camera_args())
            self._wait_for_results(pipeline)
            pipeline.finish('recorder')
        if not self._kept or not self.sent:
            reason = self.health.get('last_error') or 'it reports no error.'
            raise ValueError(f'No result of the segmenter arrived; its last error: {reason}')

    def _camera_args(self) -> list[str]:
        args = self._args
        # The topic that was chosen here, lest the camera choose again.
        return [
            *('--source', args.source, '--topic', self._source.topic),
            *('--seed', str(args.seed), '--scene-frames', str(args.frames or _SCENE_FRAMES)),
            *('--seconds', str(self._seconds), '--frames', str(args.frames)),
            *('--rate', str(args.rate)),
        ]

    def _num_expected(self) -> int | None:
        """Frames that the camera will send, as far as it is known."""
        args, source = self._args, self._source
        limits = [n for n in (source.num_frames, args.frames) if n]
        if self._seconds:
            limits.append(round(self._seconds * source.fps))
        return min(limits, default=None)

    def _what_is_played(self) -> str:
        """The source, and how much of it."""
        source, expected = self._source, self._num_expected()
        at_rate = f', here {self._args.rate:.4g}' if self._args.rate else ''
        if source.is_live:
            return f'{source.description}, for {self._seconds:.4g} s (Ctrl-C ends it earlier)'
        if expected and source.num_frames and expected < source.num_frames:
            return f'the first {expected / source.fps:.4g} s of {source.description}{at_rate}'
        return f'{source.description}{at_rate}'

    def _wait_until_ready(self, pipeline: Pipeline) -> None:
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_ready:
            self._take(pipeline.next_event(0.2))
            if time.monotonic() > deadline_s:
                raise ValueError(
                    f'The segmenter was not active after {_READY_TIMEOUT_S:.0f} s: '
                    f'{pipeline.last_errors("segmenter")}'
                )

    def _wait_for_results(self, pipeline: Pipeline) -> None:
        """Until every frame that was sent is accounted for, or nothing moves any more."""
        progress = _Progress(self._num_expected(), self._fps)
        counts, changed_s = (0, 0, 0, 0), time.monotonic()
        while not self._is_complete():
            try:
                self._take(pipeline.next_event(0.2))
            except KeyboardInterrupt:
                if not self._source.is_live or not pipeline.is_running('camera'):
                    raise
                pipeline.interrupt('camera')
            now_s = time.monotonic()
            if counts != self._counts():
                counts, changed_s = self._counts(), now_s
            sent, received, settled, kept = counts
            progress.show(sent, kept)
            patience_s = _IDLE_S if settled == received and self._is_over else _BUSY_S
            if now_s - changed_s > patience_s:
                self.notes.append(
                    f'Stopped waiting: of {sent} frames {sent - received} did not reach the '
                    f'segmenter, {received - settled} are still in work, and the results of '
                    f'{int(self.health["processed"]) - kept} did not reach the recorder whole.'
                )
                break
        progress.end()

    def _take(self, source_and_event: tuple[str, dict[str, Any]] | None) -> None:
        if source_and_event is None:
            return
        event = source_and_event[1]
        kind = event.pop('event')
        if kind == 'ready':
            self._is_ready = True
        elif kind == 'sent':
            self.sent.append(event)
        elif kind == 'health':
            self.health = event
        elif kind == 'kept':
            self._kept = event['frames']
        elif kind == 'end':
            self._is_over = True
            self.notes += event['notes']

    def _counts(self) -> tuple[int, int, int, int]:
        """Frames sent, received, settled (processed or given up), and kept."""
        received, processed, *given_up = (
            int(self.health.get(key, 0))
            for key in ('received', 'processed', 'dropped', 'rejected', 'failed')
        )
        return len(self.sent), received, processed + sum(given_up), self._kept

    def _is_complete(self) -> bool:
        sent, received, settled, kept = self._counts()
        is_settled = sent == received == settled and kept >= int(self.health.get('processed', 0))
        return self._is_over and is_settled


class _Progress:
    """How far the run is: one line that changes in a terminal, now and then a line elsewhere."""

    def __init__(self, num_expected: int | None, fps: float) -> None:
        self._num_expected, self._fps = num_expected, fps
        self._is_terminal = sys.stdout.isatty()
        self._period_s = 0.2 if self._is_terminal else 5.0
        self._shown_s = 0.0 if self._is_terminal else time.monotonic()

    def show(self, sent: int, kept: int) -> None:
        """Show the counts, if it is time."""
        now_s = time.monotonic()
        if now_s - self._shown_s < self._period_s:
            return
        self._shown_s = now_s
        text = f'{sent} frames sent, results of {kept}'
        if self._num_expected:
            left_s = max(0.0, (self._num_expected - sent) / self._fps)
            text = f'{sent} of {self._num_expected} frames sent, results of {kept}, '
            text += f'{left_s:.0f} s to go' if left_s else 'waiting for the last'
        self._print(text)

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            print(flush=True)

    def _print(self, text: str) -> None:
        if self._is_terminal:
            print(f'\r\x1b[K  {text}', end='', flush=True)
        else:
            print(f'  {text}', flush=True)


def _write_results(out: Path, run: _LiveRun, title: str) -> None:
    """Complete the files beside the recording, then move all of them into place."""
    from videomt_ros.evaluation.contact_sheet import write_contact_sheet
    from videomt_ros.evaluation.live import write_tracks

    recording = run.recording
    write_tracks(recording, run.sent, recording.folder.parent / 'tracks.jsonl')
    sheet = recording.folder.parent / 'contact_sheet.png'
    write_contact_sheet(recording, run.sent[0]['stamp_ns'], f'videomt demo: {title}', sheet)
    os.replace(recording.video, recording.folder.parent / 'overlay.mp4')
    for name in _RESULTS:
        os.replace(recording.folder.parent / name, out / name)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected a whole number of 0 or more, got {text!r}')
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {text!r}')
    return value
