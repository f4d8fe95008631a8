"""`videomt benchmark tracker`: what each constant of the tracker is worth, in scores."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import (
    add_device_options,
    add_stream_settings,
    count,
    image_size,
)
from videomt_ros.cli.benchmark_report import Report, add_json_option
from videomt_ros.progress import Progress

if TYPE_CHECKING:
    from videomt_ros.datasets.dataset import Dataset
    from videomt_ros.evaluation.ablation import Changes


def add_tracker(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark tracker` and its options."""
    text = 'score the tracker with each of its constants dropped, halved and doubled'
    parser = choices.add_parser(
        'tracker',
        help=text,
        description=f'{text}, on outputs of the network that are recorded once. By default on '
        'drawn scenes that serve nothing else; with --dataset on videos of your own.',
    )
    parser.set_defaults(run=benchmark_tracker)
    parser.add_argument('--model', default='demo', help='model name, checkpoint or repository')
    parser.add_argument(
        '--scenes',
        nargs='+',
        choices=('open', 'wall', 'crowd', 'stuff'),
        default=('open', 'wall', 'crowd'),
        help='kinds of drawn scenes; default: open wall crowd. stuff is panoptic',
    )
    parser.add_argument('--dataset', help='name of a benchmark, instead of drawn scenes')
    parser.add_argument('--root', type=Path, help='folder of that data set')
    parser.add_argument('--sets', type=count, default=3, help='sets of videos; default: 3')
    parser.add_argument('--videos', type=count, default=6, help='scenes in a set; default: 6')
    parser.add_argument('--frames', type=count, default=80, help='frames of each; default: 80')
    parser.add_argument(
        '--size',
        type=image_size,
        default=(160, 128),
        metavar='WIDTHxHEIGHT',
        help='of the drawn images; default: 160x128',
    )
    parser.add_argument(
        '--constants', nargs='+', default=(), metavar='NAME', help='those to vary; default: all'
    )
    add_stream_settings(parser, 'for all variants, such as memory_similarity=0')
    add_device_options(parser)
    add_json_option(parser)


def benchmark_tracker(args: argparse.Namespace) -> int:
    """Print one table for each kind of scenes."""
    from videomt_ros.datasets.benchmarks import open_dataset
    from videomt_ros.engines.build import load_engine
    from videomt_ros.evaluation.ablation import ablate, draw_scenes, split_videos, variants
    from videomt_ros.model.device import choose_device
    from videomt_ros.speed.machine import engine_modules, header

    if (args.dataset is None) != (args.root is None):
        raise ValueError('Expected --dataset and --root together, got one of them alone.')
    tried = variants(args.constants)
    device = choose_device(args.device)
    net = load_engine(args.model, args.engine, device, args.precision)
    machine = header(device, 'torch', 'timm', 'numpy', *engine_modules(args.engine))
    report = Report(args, 'tracker', machine, model=f'{args.model}, {net.digest()}')
    width, height = args.size
    for kind in [args.dataset] if args.dataset else args.scenes:
        with ExitStack() as stack:
            if args.dataset:
                dataset = open_dataset(args.dataset, args.root)
            else:
                folder = stack.enter_context(TemporaryDirectory())
                num_videos = args.sets * args.videos
                dataset = draw_scenes(kind, Path(folder), num_videos, args.frames, (height, width))
            sets = split_videos(dataset, args.sets)
            bar = stack.enter_context(Progress(len(tried) * len(sets), 'pass', kind))
            found = []
            for changes in ablate(sets, net, tried, dict(args.set), bar.update):
                found.append(changes)
                report.add(
                    scenes=kind,
                    subject=changes.variant.subject,
                    change=changes.variant.change,
                    figures=changes.figures,
                    changes=changes.changes,
                )
        print(f'\n{describe(kind, dataset, args.sets)}')
        report.table(rows(found), left=2)
    report.end('Mean difference to the default over the sets, and its standard deviation.')
    return 0


def describe(kind: str, dataset: Dataset, num_sets: int) -> str:
    """Say in a line on which videos a table was measured."""
    from videomt_ros.evaluation.ablation import KINDS

    videos = list(dataset.videos)
    meaning = f': {KINDS[kind].meaning}' if kind in KINDS else ''
    return (
        f'{kind}{meaning}; {len(videos)} videos in {num_sets} sets, from {videos[0].name} to '
        f'{videos[-1].name}'
    )


def rows(found: list[Changes]) -> list[list[str]]:
    """Build the table: the figures of the default, then the differences of each variant."""
    names = list(found[0].changes)
    cells = [['constant', 'change', *names]]
    for number, entry in enumerate(found):
        if number:
            values = [
                f'{entry.changes[name][0]:+.1f} ± {entry.changes[name][1]:.1f}' for name in names
            ]
        else:
            values = [
                f'{sum(each[name] for each in entry.figures) / len(entry.figures):.1f}'
                for name in names
            ]
        cells.append([entry.variant.subject, entry.variant.change, *values])
    return cells
