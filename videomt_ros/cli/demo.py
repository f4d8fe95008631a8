"""`videomt demo`: run camera, segmenter and recorder as three processes over ROS 2."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import add_engine_option, positive_number, whole_number

if TYPE_CHECKING:
    from videomt_ros.datasets.recording import Recording
    from videomt_ros.datasets.source import Source
    from videomt_ros.rig.run import RigRun

HELP = 'segment and track a scene, video, webcam or bag, live over ROS 2'

_SCENE_FRAMES = 300
_FILE_SECONDS, _WEBCAM_SECONDS = 60.0, 20.0
_RESULTS = ('overlay.mp4', 'contact_sheet.png', 'tracks.jsonl')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        '--source',
        default='synthetic',
        help="'synthetic', a video file, the index of a webcam, or a bag (rosbag2 folder, .mcap, "
        '.db3); default: synthetic',
    )
    parser.add_argument('--topic', default='', help='image topic of a bag that has several')
    parser.add_argument(
        '--model',
        default='demo',
        help='model name, checkpoint or hub repository; default: demo. The synthetic scene has '
        'sky, ground and walls if the model knows any of these, as demo_panoptic does',
    )
    add_engine_option(parser)
    parser.add_argument(
        '--out', type=Path, default=Path('out/demo'), help='folder for the results'
    )
    # Scene 29 has six shapes of five classes; some appear late, and some leave and return.
    parser.add_argument(
        '--seed', type=whole_number, default=29, help='seed of the synthetic scene'
    )
    parser.add_argument(
        '--frames',
        type=whole_number,
        default=0,
        help='number of frames to play; default: no limit',
    )
    parser.add_argument(
        '--seconds',
        type=positive_number,
        help=f'seconds of the source to play; default: {_FILE_SECONDS:.0f}, '
        f'for a webcam {_WEBCAM_SECONDS:.0f}',
    )
    parser.add_argument(
        '--rate',
        type=positive_number,
        default=0.0,
        help='frames per second; default: those of the source',
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0 once the results are written, also after a Ctrl-C that ends a webcam.
    """
    from videomt_ros.datasets.opening import SyntheticSource, open_source
    from videomt_ros.datasets.recording import Recording
    from videomt_ros.evaluation.report.demo import build_report
    from videomt_ros.model.sources import find_source
    from videomt_ros.rig.run import RigRun

    find_source(args.model)  # a wrong name is reported now, not by a node after its start
    # SIGTERM ends the child processes as well, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stuff = args.source == 'synthetic' and _knows_stuff(args.model)
    source = open_source(args.source, args.topic, args.seed, args.frames or _SCENE_FRAMES, stuff)
    args.out.mkdir(parents=True, exist_ok=True)
    # Within the output folder, so that complete results are renamed instead of copied.
    with tempfile.TemporaryDirectory(prefix='.run-', dir=args.out) as scratch:
        recording = Recording(Path(scratch, 'recording'))
        played = _Played(args, source, stuff)
        run = RigRun(Path(scratch), played.num_expected(), played.fps, source.is_endless)
        run.execute(
            {'model': args.model, 'engine': args.engine},
            recorder=['--folder', str(recording.folder), '--fps', str(played.fps)],
            camera=played.camera_args(),
            playing=played.in_words(),
        )
        for note in run.notes:
            print(f'Note: {note}')
        print('Writing the results', flush=True)
        sent = {frame['stamp_ns']: frame['number'] for frame in run.sent}
        scene = source.scene if isinstance(source, SyntheticSource) else None
        report = build_report(recording, sent, run.health, scene)
        _write_results(args.out, recording, run, f'{source.description}, model {args.model}')
    print(report.table())
    print(f'Results: {", ".join(str(args.out / name) for name in _RESULTS)}')
    return 0


def _knows_stuff(model: str) -> bool:
    """Tell whether the model has classes of stuff, which the synthetic scene then shows."""
    from videomt_ros.datasets.synthetic.stuff import STUFF_NAMES
    from videomt_ros.model import CheckpointError
    from videomt_ros.model.presets import Preset
    from videomt_ros.model.sources import find_source

    try:
        found = find_source(model)
        if isinstance(found, Preset) and found.path is not None:
            known = found.config().class_names  # without torch, so that the demo starts sooner
        else:
            from videomt_ros.model.checkpoint import load_config

            known = load_config(model).class_names
    except CheckpointError:
        return False  # the segmenter will report the error
    return not set(known).isdisjoint(STUFF_NAMES)


class _Played:
    """The source with the part of it that is played, and its rate."""

    def __init__(self, args: argparse.Namespace, source: Source, stuff: bool) -> None:
        self._args, self._source, self._stuff = args, source, stuff
        self.fps = args.rate or source.fps
        self._seconds = args.seconds or 0.0
        if not self._seconds and args.source != 'synthetic':
            self._seconds = _WEBCAM_SECONDS if source.is_endless else _FILE_SECONDS

    def camera_args(self) -> list[str]:
        """Build the arguments of `rig.camera`."""
        args = self._args
        # Names the topic that was chosen here, so that the camera takes the same one.
        return [
            *('--source', args.source, '--topic', self._source.topic),
            *('--seed', str(args.seed), '--scene-frames', str(args.frames or _SCENE_FRAMES)),
            *('--seconds', str(self._seconds), '--frames', str(args.frames)),
            *('--rate', str(args.rate)),
            *(['--stuff'] if self._stuff else []),
        ]

    def num_expected(self) -> int | None:
        """Return the number of frames that the camera will send; None if it is not known."""
        args, source = self._args, self._source
        limits = [n for n in (source.num_frames, args.frames) if n]
        if self._seconds:
            limits.append(round(self._seconds * source.fps))
        return min(limits, default=None)

    def in_words(self) -> str:
        """Describe the source and the part of it that is played."""
        source, expected = self._source, self.num_expected()
        at_rate = f', here {self._args.rate:.4g}' if self._args.rate else ''
        if source.is_endless:
            return f'{source.description}, for {self._seconds:.4g} s (Ctrl-C ends it earlier)'
        if expected and source.num_frames and expected < source.num_frames:
            return f'the first {expected / source.fps:.4g} s of {source.description}{at_rate}'
        return f'{source.description}{at_rate}'


def _write_results(out: Path, recording: Recording, run: RigRun, title: str) -> None:
    """Write the remaining files beside the recording, then move all into place."""
    from videomt_ros.evaluation.report.contact_sheet import write_contact_sheet
    from videomt_ros.evaluation.report.demo import write_tracks

    write_tracks(recording, run.sent, recording.folder.parent / 'tracks.jsonl')
    sheet = recording.folder.parent / 'contact_sheet.png'
    write_contact_sheet(recording, run.sent[0]['stamp_ns'], f'videomt demo: {title}', sheet)
    os.replace(recording.video, recording.folder.parent / 'overlay.mp4')
    for name in _RESULTS:
        os.replace(recording.folder.parent / name, out / name)
