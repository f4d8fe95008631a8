"""Bags and real time in `videomt evaluate`: their options, checks and lines of output."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomt_ros.cli.argument_types import (
    add_grey_options,
    grey_range_of,
    number_from_zero,
    positive_number,
)

if TYPE_CHECKING:
    from videomt_ros.datasets.bags.fleet_files import FleetBag
    from videomt_ros.datasets.dataset import Dataset
    from videomt_ros.evaluation.real_time import RealTime


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for bags and for real time."""
    bags = parser.add_argument_group('bags, in place of --dataset and --root')
    bags.add_argument(
        '--bag',
        type=Path,
        action='append',
        help='rosbag2 folder, .mcap, .db3 or .bag with images; several are one data set',
    )
    bags.add_argument(
        '--bags',
        type=Path,
        metavar='DIR',
        help='all bags in a folder and below it as one data set, each with its truth beside it, '
        'as `videomt bag make` writes it',
    )
    bags.add_argument(
        '--results-bag',
        type=Path,
        help='bag of the lists of tracks that a node published; needs no --model. With --bag as '
        'well, labels may have other stamps than images, and the report has pictures',
    )
    bags.add_argument('--topic', default='', help='topic to read, if a bag has several that fit')
    bags.add_argument(
        '--truth',
        type=Path,
        action='append',
        help='labels with stamps: JSON of YouTube-VIS or VIPSeg, or VSPW folder; one for each '
        '--bag or one for all; default: NAME.json or NAME_vspw beside the bag NAME',
    )
    add_grey_options(parser.add_argument_group('images of 16 bits'))
    clock = parser.add_argument_group('score in real time, beside the others')
    clock.add_argument(
        '--real-time',
        type=positive_number,
        metavar='FACTOR',
        help='score each frame against the newest result at its time, with the video played '
        'FACTOR times as fast as it was recorded',
    )
    clock.add_argument(
        '--latency-ms',
        type=number_from_zero,
        metavar='L',
        help='processing time of a frame in ms; without --real-time its factor is 1; default: as '
        'measured',
    )


def check_sources(args: argparse.Namespace) -> None:
    """Check that exactly one source was named, with the options that it needs.

    Raises:
        ValueError: options are missing or contradict each other.
    """
    is_bag = any(one is not None for one in (args.bag, args.bags, args.results_bag))
    if is_bag and (args.dataset is not None or args.root is not None):
        raise ValueError('Expected --dataset and --root, or a bag, got both.')
    if args.bags is not None and (args.bag or args.truth or args.results_bag):
        raise ValueError(
            'Expected --bags alone, which has the truth beside each bag: leave --bag, --truth and '
            '--results-bag out.'
        )
    if args.results_bag is not None:
        if not args.truth:
            raise ValueError('Expected --truth with the labels; there is no score without them.')
        if len(args.truth) > 1 or len(args.bag or ()) > 1:
            raise ValueError('Expected one --truth and at most one --bag with --results-bag.')
    elif args.bag is not None and len(args.bag) == 1:
        if not args.truth:
            _truth_beside(args.bag[0])
        elif len(args.truth) > 1:
            raise ValueError(f'Expected one --truth for one bag, got {len(args.truth)}.')
    if not is_bag and (args.dataset is None or args.root is None):
        raise ValueError(
            'Expected --dataset and --root, or --bag, or --bags, or --results-bag with --truth.'
        )
    if not is_bag and (args.truth is not None or args.topic):
        raise ValueError('--truth and --topic belong to a bag; a data set holds its own truth.')
    if args.set and args.mode == 'published':
        raise ValueError('--set is for the live score, which --mode published does without.')
    grey_range_of(args)
    if args.results_bag is not None and args.bag is None and grey_range_of(args) is not None:
        raise ValueError('--grey-low and --grey-high are for images, and there is no --bag.')
    if args.results_bag is None and args.model is None:
        raise ValueError('Expected --model; only --results-bag goes without.')
    if args.results_bag is not None:
        if args.mode == 'published':
            raise ValueError('Expected the live mode for --results-bag: a node publishes live.')
        for option in ('model', 'real_time', 'latency_ms', 'limit', 'split', 'set'):
            if getattr(args, option) not in (None, []):
                name = option.replace('_', '-')
                raise ValueError(f'--{name} has no meaning for --results-bag: leave it out.')


def _truth_beside(bag: Path) -> Path:
    """Find the truth of a bag that was named without one.

    Raises:
        ValueError: there is none, or more than one.
    """
    from videomt_ros.datasets.bags.fleet_files import truth_beside

    found = truth_beside(bag)
    if found.truth is None:
        raise ValueError(
            'Expected --truth with the labels of the bag; there is no score without them. '
            f'{found.problem}'
        )
    return found.truth


SOURCE_OPTIONS: dict[str, type] = {
    'dataset': str,
    'root': Path,
    'split': str,
    'skip_bad': bool,
    'bag': Path,
    'bags': Path,
    'truth': Path,
    'topic': str,
    'grey_low': int,
    'grey_high': int,
}
"""The options that say which data are evaluated, and the types of their values."""


def open_source(args: argparse.Namespace, scratch: Path) -> tuple[Dataset, str]:
    """Open the data set that the options name.

    Args:
        args: the options.
        scratch: existing, empty folder for files of the data set, which must outlast it.

    Returns:
        The data set, and a short name for the folder of its results.
    """
    from videomt_ros.datasets.benchmarks import open_dataset
    from videomt_ros.datasets.image_folder import remarks_on_images

    if args.bags is not None:
        from videomt_ros.datasets.bags.fleet_files import find_fleet

        name = args.bags.resolve().name
        return _open_fleet(args, find_fleet(args.bags), scratch), name
    if args.bag is not None and len(args.bag) > 1:
        from videomt_ros.datasets.bags.fleet_files import name_fleet

        name = f'{args.bag[0].stem}-and-{len(args.bag) - 1}-more'
        fleet = name_fleet(args.bag, args.truth or [])
        return _open_fleet(args, fleet, scratch), name
    if args.bag is not None:
        return open_bag(args), args.bag[0].stem
    split = {} if args.split is None else {'split': args.split}
    dataset = open_dataset(
        args.dataset, args.root, skip_bad=args.skip_bad, keep_faulty=True, **split
    )
    dataset = dataset.with_grey_range(grey_range_of(args))
    notes = (*dataset.notes, *remarks_on_images(dataset.videos))
    return replace(dataset, notes=notes), args.dataset


def _open_fleet(args: argparse.Namespace, fleet: Sequence[FleetBag], scratch: Path) -> Dataset:
    from videomt_ros.datasets.bags.fleet import fleet_dataset

    # With the topic: other cameras of the bags are another data set. Without the name of the
    # folder, since the same bags may lie in several, each on a machine of its own.
    number = 'one bag' if len(fleet) == 1 else f'{len(fleet)} bags'
    name = f'{number} {args.topic}'.strip()
    dataset = fleet_dataset(name, fleet, args.topic, scratch, skip_bad=args.skip_bad)
    return dataset.with_grey_range(grey_range_of(args))


def keep_truth(dataset: Dataset, out: Path) -> None:
    """Keep the truth of all bags, where `open_source` has written one, with the results.

    `videomt score` then gives the figures once more.
    """
    from videomt_ros.datasets.bags.fleet_files import TRUTH_FOLDER

    if dataset.scratch is not None:
        target = out / TRUTH_FOLDER
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(dataset.scratch, target, symlinks=True)


def open_bag(args: argparse.Namespace) -> Dataset:
    """Open the only bag of --bag as a data set."""
    from videomt_ros.datasets.bags.dataset import bag_dataset

    [bag] = args.bag
    truth = args.truth[0] if args.truth else _truth_beside(bag)
    # With two bags, --topic names the topic of the results.
    topic = '' if args.results_bag is not None else args.topic
    dataset = bag_dataset(bag, topic, truth, skip_bad=args.skip_bad)
    return dataset.with_grey_range(grey_range_of(args))


def score_results_bag(args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Score --results-bag.

    Returns:
        Content of metrics.json, and its folder.
    """
    from videomt_ros.datasets.bags.dataset import BagVideo
    from videomt_ros.datasets.dataset import left_out_summary
    from videomt_ros.evaluation.results_bag import evaluate_results_bag

    images = None if args.bag is None else open_bag(args).videos[0]
    assert images is None or isinstance(images, BagVideo)
    out = args.out or Path('out/evaluate') / f'results-{args.results_bag.stem}'
    scored = evaluate_results_bag(
        args.results_bag, args.topic, args.truth[0], out, images, args.resume, args.skip_bad
    )
    for line in [*scored['notes'], *left_out_summary(scored['left_out'])]:
        print(f'Note: {line}', file=sys.stderr)
    return scored, out


def real_time_of(args: argparse.Namespace) -> RealTime | None:
    """Build the settings of the score in real time; None if it was not asked for."""
    from videomt_ros.evaluation.real_time import RealTime

    if args.real_time is None and args.latency_ms is None:
        return None
    return RealTime(1.0 if args.real_time is None else args.real_time, args.latency_ms)


def note_lines(metrics: Mapping[str, Any], modes: tuple[str, ...]) -> Iterator[str]:
    """Yield each note once; those of the data set were told before the run."""
    notes = [note for mode in modes for note in metrics.get(mode, {}).get('notes', ())]
    for note in dict.fromkeys([*metrics['run']['notes'], *notes]):
        if note not in metrics['notes']:
            yield f'Note: {note}'


def real_time_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the score in real time, and those at other latencies."""
    from videomt_ros.evaluation.figures import as_text

    if (clocked := metrics.get('real_time')) is None:
        return
    name = clocked['sweep_figure']
    latency = 'measured latency'
    if clocked['latency_ms'] is not None:
        latency = f'{clocked["latency_ms"]:g} ms a frame'
    elif clocked['measured_ms'] is not None:
        latency += f', median {clocked["measured_ms"]["p50"]:.0f} ms'
    figures = clocked['scores'].get('figures', {})
    yield (
        f'Real time x {clocked["factor"]:g}, {latency}: '
        f'{name} {as_text(name, figures.get(name))}, {_counts(clocked)}'
    )
    for entry in clocked['sweep']:
        yield (
            f'  at {entry["latency_ms"]:3g} ms: {name} {as_text(name, entry["figure"])}, '
            f'{_counts(entry)}'
        )


def _counts(entry: Mapping[str, int]) -> str:
    waiting = entry['frames'] - entry['processed'] - entry['dropped']
    return (
        f'{entry["processed"]} of {entry["frames"]} frames processed, {entry["dropped"]} dropped'
        + (f', {waiting} waiting at the end' if waiting else '')
    )
