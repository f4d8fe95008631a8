"""`videomt bag make` and `replay`: make bags of a data set, and play bags through the node."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from videomt_ros.cli.argument_types import (
    add_grey_options,
    count,
    grey_range_of,
    positive_number,
)

HELP = 'make bags of a data set with their truth, or play a bag through the running node'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their options."""
    parts = parser.add_subparsers(metavar='make | replay', required=True)

    text = 'write each video of a data set as a rosbag2, with its truth beside it'
    make = parts.add_parser('make', help=text, description=text)
    make.add_argument(
        '--dataset', required=True, help='name of the data set, as for `videomt evaluate`'
    )
    make.add_argument('--root', type=Path, required=True, help='folder of the data set')
    make.add_argument('--split', default='', help="default: the data set's validation split")
    make.add_argument('--out', type=Path, required=True, help='folder for the bags')
    make.add_argument(
        '--storage',
        choices=('mcap', 'sqlite3'),
        default='mcap',
        help='file format of the bags; default: mcap',
    )
    make.add_argument(
        '--compressed',
        choices=('jpeg', 'png'),
        help='write sensor_msgs/CompressedImage on /camera/image_raw/compressed',
    )
    make.add_argument(
        '--zstd',
        choices=('none', 'file', 'message'),
        default='none',
        help='what rosbag2 compresses with zstd: whole files, or each message; default: none',
    )
    make.add_argument(
        '--limit', type=count, help='number of videos, from the first on; default: all'
    )
    make.set_defaults(run=_make)

    text = 'play a bag through the real node, over ROS 2, and record what it publishes'
    replay = parts.add_parser('replay', help=text, description=text)
    replay.add_argument('bag', type=Path, help='rosbag2 folder, .mcap, .db3 or .bag')
    replay.add_argument('--topic', default='', help='image topic of a bag that has several')
    node = replay.add_mutually_exclusive_group(required=True)
    node.add_argument('--model', help='model name, checkpoint or hub repository')
    node.add_argument(
        '--running',
        metavar='NODE',
        default='',
        help='full name of a segmenter that runs already, such as /segmenter, in the domain of '
        'this shell; it must listen to image_raw in its namespace',
    )
    replay.add_argument(
        '--out',
        type=Path,
        required=True,
        help='new bag (mcap) for the recorded TrackArray messages',
    )
    pace = replay.add_mutually_exclusive_group()
    pace.add_argument(
        '--rate',
        type=positive_number,
        default=1.0,
        help='speed relative to the recording; default: 1',
    )
    pace.add_argument(
        '--every-frame',
        action='store_true',
        help='as fast as possible without dropping frames: each image is sent when the result of '
        'the one before has arrived',
    )
    replay.add_argument(
        '--task',
        choices=('auto', 'instance', 'panoptic', 'semantic'),
        default='auto',
        help='task to run the model for; auto is the one that it was trained for',
    )
    replay.add_argument(
        '--clock',
        action='store_true',
        help='publish the stamp of each image on /clock before it, for a node with use_sim_time',
    )
    replay.add_argument('--params', type=Path, help='parameter file of the node')
    add_grey_options(replay)
    replay.set_defaults(run=_replay)


def main(args: argparse.Namespace) -> int:
    """Run the subcommand that was chosen.

    Returns:
        0 once the bags are written.
    """
    # SIGTERM ends the child processes as well, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return args.run(args)


def _make(args: argparse.Namespace) -> int:
    from videomt_ros.datasets.bags.truth_formats import TRUTH_FORMATS
    from videomt_ros.datasets.bags.writing import BagFormat, make_bags
    from videomt_ros.datasets.benchmarks import open_dataset

    dataset = open_dataset(args.dataset, args.root, *([args.split] if args.split else []))
    dataset = replace(dataset, videos=dataset.videos[: args.limit])
    form = BagFormat(args.storage, args.compressed or 'raw', args.zstd)
    bags = make_bags(dataset, args.out, form, lambda name: print(f'  {name}', flush=True))
    truth = 'each with its truth beside it' if dataset.truth else 'without truth'
    print(f'{len(bags)} {"bag" if len(bags) == 1 else "bags"} in {args.out}, {truth}')
    if bags and dataset.truth:
        beside = TRUTH_FORMATS[dataset.family].paths(args.out, dataset.videos[0])[-1]
        source = ['--bag', str(bags[0]), '--truth', str(beside)]
        if len(bags) > 1:
            source = ['--bags', str(args.out)]
        print(shlex.join(['videomt', 'evaluate', '--model', 'MODEL', *source]))
    return 0


def _replay(args: argparse.Namespace) -> int:
    from videomt_ros.datasets.bags.images import BagImages
    from videomt_ros.launch_files import find_models
    from videomt_ros.rig.run import RigRun

    if args.out.exists():
        raise ValueError(f'{args.out} exists already. Name another folder, or remove it.')
    if args.params is not None and not args.params.is_file():
        raise ValueError(f'Expected a parameter file, but there is no {args.params}.')
    grey_range = grey_range_of(args)
    if args.running and (args.params is not None or args.task != 'auto' or grey_range):
        raise ValueError(
            '--grey-low, --grey-high, --params and --task are for a segmenter that --model starts.'
        )
    params = '' if args.params is None else _read_params(args.params)
    if models := find_models('', params):
        raise ValueError(
            'A replay records the tracks of one model, that of --model, but '
            f'{args.params} names models: {", ".join(models)}. Take models out of it, and replay '
            'the bag for each of them.'
        )
    # Without --task, a task in the parameter file stays in force.
    task = {} if args.task == 'auto' else {'task': args.task}
    grey = (
        {} if grey_range is None else dict(zip(('grey_low', 'grey_high'), grey_range, strict=True))
    )
    # The node reduces images of 16 bits; a file of its parameters may say how.
    keep_depth = bool(args.running) or 'grey_' in params
    source = BagImages(args.bag, args.topic, grey_range, keep_depth)
    opened = list(source.notes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.replay-', dir=args.out.parent) as scratch:
        # The file in a bag's folder is named after the folder.
        bag = Path(scratch, 'bag', args.out.name)
        bag.parent.mkdir()
        # With --every-frame images are sent as fast as the node takes them.
        pace = ['--rate', '1e9', '--every-frame'] if args.every_frame else []
        pace += ['--clock'] if args.clock else []
        run = RigRun(Path(scratch), source.num_frames, False, args.running)
        run.execute(
            {'model': args.model, 'autostart': True, 'publish_tracks': True, **task, **grey},
            recorder=['--bag', str(bag)],
            camera=[
                *('--source', str(args.bag), '--topic', source.topic),
                *('--speed', str(args.rate), '--keep-stamps', *pace),
            ],
            playing=source.description,
            params_file=args.params,
        )
        os.replace(bag, args.out)
    for note in dict.fromkeys([*opened, *run.notes]):
        print(f'Note: {note}')
    sent, received, _, kept = run.counts()
    print(
        f'{sent} frames sent, {received} received, {run.count("processed")} processed, '
        f'{run.count("dropped")} dropped, {run.count("rejected")} rejected, '
        f'{run.count("failed")} failed; '
        f'{kept} lists of tracks in {args.out}'
    )
    return 0


def _read_params(path: Path) -> str:
    """Read a parameter file; raises a ValueError unless it is YAML."""
    import yaml

    try:
        text = path.read_text(encoding='utf-8')
        yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'Expected YAML in the parameter file {path}: {reason}.') from error
    return text
