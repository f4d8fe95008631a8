"""`videomt demo`: run camera, segmenter and recorder as three processes over ROS 2."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import (
    add_engine_option,
    add_grey_options,
    grey_range_of,
    positive_number,
    whole_number,
)
from videomt_ros.files import keep_earlier

if TYPE_CHECKING:
    from videomt_ros.datasets.recording import Recording
    from videomt_ros.datasets.source import Source
    from videomt_ros.evaluation.report.demo import DemoReport
    from videomt_ros.model.config import NetworkConfig
    from videomt_ros.model.presets import Preset
    from videomt_ros.rig.run import RigRun

HELP = 'segment and track a scene, video, camera, stream or bag, live over ROS 2'

DRAWN_SCENE = 'synthetic'
"""Name of the source that is drawn; all others are taken for real."""

DEFAULT_MODEL = 'videomt-dinov2-small-ytvis2019'
"""Model for a real source where none is named: the published one that takes least to run.

Its 40 classes are those of YouTube-VIS (person, dog, car, ...), its download has about 100 MB, and
it runs at a short side of 448 pixels. LVMT-S, the other small one, keeps identities better, but it
knows 25 classes, takes 544 pixels, and its ViT is under the terms of DINOv3.
"""

_HOW_TO_GO_ON = (
    'To go on, connect to the network (and unset HF_HUB_OFFLINE), set HF_HOME to a folder whose '
    'cache has the file, or name another model by --model, which is MODEL= after make demo: a '
    'file, a name from `videomt models`, or demo, which knows drawn shapes alone.'
)
_SCENE_FRAMES = 300
_FILE_SECONDS, _WEBCAM_SECONDS = 60.0, 20.0
_RESULTS = ('overlay.mp4', 'contact_sheet.png', 'tracks.jsonl')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        '--source',
        default=DRAWN_SCENE,
        help="'synthetic', a video file, an image, a folder of images, a pattern in quotes "
        "such as 'frames/*.jpg' or frame_%%05d.png, a bag (rosbag2 folder, .mcap, .db3), a webcam "
        '(0 or /dev/video0), or a URL that OpenCV opens (rtsp://, http://, ...); default: '
        'synthetic',
    )
    parser.add_argument('--topic', default='', help='image topic of a bag that has several')
    parser.add_argument(
        '--model',
        default='',
        help='model name, checkpoint or hub repository; default: demo for the synthetic scene, '
        f'{DEFAULT_MODEL} (downloaded once) for all other sources. The synthetic scene '
        'has sky, ground and walls if the model knows any of these, as demo_panoptic does',
    )
    add_engine_option(parser)
    add_grey_options(parser)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/demo'),
        help='folder for the results; those of an earlier run are moved into a folder in it; '
        'default: out/demo',
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
        f'for a webcam or a stream without end {_WEBCAM_SECONDS:.0f}',
    )
    parser.add_argument(
        '--rate',
        type=positive_number,
        default=0.0,
        help='frames per second; default: those of the source. A file is played slower or faster, '
        'and of a camera, which has its own rate, frames are left out',
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0 once the results are written, also after a Ctrl-C that ends a webcam; 1 if the model
        is not on this machine and can't be downloaded.
    """
    from videomt_ros.datasets.opening import SyntheticSource, open_source
    from videomt_ros.datasets.recording import Recording
    from videomt_ros.evaluation.report.demo import build_report
    from videomt_ros.model.sources import find_source
    from videomt_ros.rig.run import RigRun

    is_drawn = args.source == DRAWN_SCENE
    model = args.model or ('demo' if is_drawn else DEFAULT_MODEL)
    found = find_source(model)  # a wrong name is reported now, not by a node after its start
    # SIGTERM ends the child processes as well, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Opened now, so that a wrong name is reported before a download.
    grey_range = grey_range_of(args)
    source = None
    if not is_drawn:
        source = open_source(args.source, args.topic, grey_range=grey_range)
    if not _is_fetched(found, is_default=not args.model):
        return 1
    config = _find_config(found)
    stuff = is_drawn and _knows_stuff(config)
    warning = config.warning if config is not None and not is_drawn else ''
    if source is None:
        source = SyntheticSource(args.seed, args.frames or _SCENE_FRAMES, stuff=stuff)
    if warning:
        print(
            f'Warning: {warning}. Unless {_shown(args.source)} shows such scenes, its results '
            'mean nothing, whatever their scores. Without MODEL= (--model) the demo takes '
            f'{DEFAULT_MODEL}.',
            flush=True,
        )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f'Expected a folder for the results, but {args.out} is none and cannot be made: '
            f'{error.strerror}. Name another by --out, which is OUT= after make demo.'
        ) from error
    # Within the output folder, so that complete results are renamed instead of copied.
    with tempfile.TemporaryDirectory(prefix='.run-', dir=args.out) as scratch:
        recording = Recording(Path(scratch, 'recording'))
        played = _Played(args, source, stuff)
        parameters: dict[str, str | int | bool] = {
            'model': model,
            'engine': args.engine,
            'drawn_images': is_drawn,
        }
        if grey_range is not None:
            parameters['grey_low'], parameters['grey_high'] = grey_range
        opened = list(source.notes)
        if played.num_expected() == 1:
            parameters['confirm_frames'] = 1  # no second frame confirms what the first one shows
        run = RigRun(Path(scratch), played.num_expected(), source.is_endless)
        run.execute(
            parameters,
            recorder=['--folder', str(recording.folder), '--fps', str(played.fps)],
            camera=played.camera_args(),
            playing=played.in_words(),
        )
        for note in dict.fromkeys([*opened, *run.notes]):
            print(f'Note: {note}')
        print('Writing the results', flush=True)
        sent = {frame['stamp_ns']: frame['number'] for frame in run.sent}
        scene = source.scene if isinstance(source, SyntheticSource) else None
        report = build_report(recording, sent, run.health, scene)
        _write_results(args.out, recording, run, f'{source.description}, model {model}', warning)
    print(report.table())
    if hint := rate_hint(report, source.is_endless):
        print(f'  {hint}')
    if warning:
        print(f'  Warning: {warning}.')
    print(f'Results: {", ".join(str(args.out / name) for name in _RESULTS)}')
    return 0


def _is_fetched(found: Preset | Path | str, is_default: bool) -> bool:
    """Download a model of the hub unless it is in the cache.

    Returns:
        Whether it is on this machine now; if not, two lines on stderr say what was tried and how
        to go on.
    """
    from videomt_ros.model import CheckpointError, hub
    from videomt_ros.model.presets import Preset
    from videomt_ros.model.sources import fetch_preset, find_preset_file

    try:
        if isinstance(found, Preset) and found.path is None:
            if find_preset_file(found) is None:
                print(f'Downloading {found.file} of {found.source}', flush=True)
            fetch_preset(found)
        elif isinstance(found, str):
            hub.fetch_folder(found)
    except CheckpointError as error:
        which = f'the default for real images, {DEFAULT_MODEL}' if is_default else 'the model'
        print(f'videomt demo: Tried {which}. {error}', file=sys.stderr)
        print(_HOW_TO_GO_ON, file=sys.stderr)
        return False
    return True


def _find_config(found: Preset | Path | str) -> NetworkConfig | None:
    """Find the configuration of a model; None if its file is damaged, which the node reports."""
    from videomt_ros.model import CheckpointError
    from videomt_ros.model.presets import Preset

    try:
        if isinstance(found, Preset):
            return found.config()  # without torch, so that the demo starts sooner
        from videomt_ros.model.checkpoint import load_config

        return load_config(found)
    except CheckpointError:
        return None


def _knows_stuff(config: NetworkConfig | None) -> bool:
    """Tell whether the model has classes of stuff, which the synthetic scene then shows."""
    from videomt_ros.datasets.synthetic.stuff import STUFF_NAMES

    return config is not None and not set(config.class_names).isdisjoint(STUFF_NAMES)


class _Played:
    """The source with the part of it that is played, and its rate."""

    def __init__(self, args: argparse.Namespace, source: Source, stuff: bool) -> None:
        self._args, self._source, self._stuff = args, source, stuff
        self.fps = args.rate or source.fps
        self._seconds = args.seconds or 0.0
        if not self._seconds and args.source != DRAWN_SCENE:
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
            # The rate changes how fast frames of a file are played, not which ones.
            fps = min(self.fps, source.fps) if source.is_endless else source.fps
            limits.append(round(self._seconds * fps))
        return min(limits, default=None)

    def in_words(self) -> str:
        """Describe the source and the part of it that is played."""
        source, expected = self._source, self.num_expected()
        text = source.description
        text += f', here {self._args.rate:.4g}' if self._args.rate else ''
        if source.is_endless:
            return f'{text}, for {self._seconds:.4g} s (Ctrl-C ends it earlier)'
        if expected and source.num_frames and expected < source.num_frames:
            return f'the first {expected / source.fps:.4g} s of {text}'
        return text


def rate_hint(report: DemoReport, is_endless: bool) -> str:
    """Say what to do if the source is faster than this machine; empty if it is not."""
    from videomt_ros.rig.trials import MAX_MISSED

    if report.dropped <= MAX_MISSED * report.sent or math.isnan(report.processed_hz):
        return ''
    text = (
        f'{report.dropped} of {report.sent} frames were dropped, since the source gives '
        f'{report.sent_hz:.3g} a second and this machine processes {report.processed_hz:.3g} with '
        'this model, always the newest. '
    )
    if not is_endless:
        slower = f'{0.9 * report.processed_hz:.2g}'
        text += f'RATE={slower} (--rate {slower}) plays slowly enough for every frame. '
    return (
        f'{text}A smaller model (MODEL=, --model) is faster, and so is a smaller input_size of '
        'the node.'
    )


def _shown(source: str) -> str:
    from videomt_ros.datasets.live_video import without_password

    return without_password(source)


def _write_results(out: Path, recording: Recording, run: RigRun, title: str, warning: str) -> None:
    """Write the remaining files beside the recording, then move all into place."""
    from videomt_ros.evaluation.report.contact_sheet import write_contact_sheet
    from videomt_ros.evaluation.report.demo import write_tracks

    write_tracks(recording, run.sent, recording.folder.parent / 'tracks.jsonl')
    sheet = recording.folder.parent / 'contact_sheet.png'
    write_contact_sheet(
        recording, run.sent[0]['stamp_ns'], f'videomt demo: {title}', sheet, note=warning
    )
    os.replace(recording.video, recording.folder.parent / 'overlay.mp4')
    if (kept := keep_earlier(out, _RESULTS)) is not None:
        print(f'The results of an earlier run in {out} are now in {kept}', flush=True)
    for name in _RESULTS:
        os.replace(recording.folder.parent / name, out / name)
