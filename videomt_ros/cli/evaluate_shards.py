"""Shards in `videomt evaluate`: one of several parts of the work, and all of them joined."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from videomt_ros.cli.evaluate_bags import SOURCE_OPTIONS, keep_truth, open_source

if TYPE_CHECKING:
    from videomt_ros.evaluation.run_folder import ShardNumber

_MERGE_OPTIONS = {'merge', 'out', 'resume', *SOURCE_OPTIONS}
"""Options that may be given with --merge."""
_BAG_OPTIONS = ('bag', 'bags', 'truth')
"""Options that together say where bags and their truth lie."""


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for shards."""
    group = parser.add_argument_group(
        'share the work among jobs that know nothing of each other, as in a SLURM array'
    )
    group.add_argument(
        '--shard',
        type=shard_number,
        metavar='I/N',
        help='evaluate the I-th of N shards, I from 1 to N; results go to a folder of their own '
        'in --out',
    )
    group.add_argument(
        '--merge',
        type=Path,
        metavar='DIR',
        help='join the shards in a folder, and write figures and report there, or to --out; name '
        'the data again, as by --root or --bags, only where they have moved',
    )


def shard_number(text: str) -> ShardNumber:
    """Parse the number of a shard, such as 2/8."""
    from videomt_ros.evaluation.run_folder import ShardNumber

    index, _, count = text.partition('/')
    if not (index.isdecimal() and count.isdecimal() and int(count) > 0):
        raise argparse.ArgumentTypeError(f'expected I/N, such as 2/8, got {text!r}')
    if not 1 <= int(index) <= int(count):
        fault = f'expected shards from 1/{count} to {count}/{count}, got {text!r}'
        if int(index) == 0:
            fault += (
                f'; add 1 to an index that counts from 0, as in --shard $((INDEX + 1))/{count}'
            )
        raise argparse.ArgumentTypeError(fault)
    return ShardNumber(int(index), int(count))


def check_shards(args: argparse.Namespace, defaults: argparse.Namespace) -> None:
    """Check the options for shards.

    Args:
        args: options that the user has given.
        defaults: the same without any option.

    Raises:
        ValueError: options contradict each other.
    """
    if args.merge is None:
        if args.shard is not None and args.results_bag is not None:
            raise ValueError('--shard has no meaning for --results-bag: leave it out.')
        if args.shard is not None and (args.real_time or args.latency_ms is not None):
            raise ValueError(
                'Expected --shard without a score in real time, which one machine must measure: '
                'leave --real-time and --latency-ms out.'
            )
        return
    for name, value in vars(defaults).items():
        if name not in _MERGE_OPTIONS and getattr(args, name) != value:
            option = name.replace('_', '-')
            raise ValueError(
                f'--{option} has no meaning for --merge, which takes it from the shards: leave it '
                'out.'
            )


def source_record(args: argparse.Namespace) -> dict[str, Any]:
    """Write down how the data set of these options is opened, and from which folder."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    options = {name: plain(getattr(args, name)) for name in SOURCE_OPTIONS}
    return {'cwd': str(Path.cwd()), **options}


def merge(args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Join the shards of --merge.

    Returns:
        Content of metrics.json, and its folder.
    """
    from videomt_ros.evaluation.merging import find_shards, merge_shards

    shards = find_shards(args.merge)
    is_named = any(getattr(args, name) for name, kind in SOURCE_OPTIONS.items() if kind is Path)
    _restore_source(args, shards[0].source)
    out = args.out or args.merge
    about = {
        'command': args.command,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }
    with TemporaryDirectory(prefix='videomt-truth-') as scratch:
        try:
            dataset, _ = open_source(args, Path(scratch))
        except (ValueError, OSError) as error:
            if is_named:
                raise
            raise ValueError(
                f'{error} If the data of the shards have moved, name them again, by --root or '
                '--bags as they were named there.'
            ) from error
        for remark in dataset.remarks():
            print(f'Note: {remark}', file=sys.stderr)
        metrics = merge_shards(shards, dataset, out, about)
        keep_truth(dataset, out)
    return metrics, out


def _restore_source(args: argparse.Namespace, source: Mapping[str, Any]) -> None:
    """Set the options of the data set to those of a shard, where the user has not given them."""
    is_given = {n: getattr(args, n) != getattr(args.defaults, n) for n in SOURCE_OPTIONS}
    # Paths stay as they were written, where they mean the same, since messages repeat them.
    cwd = Path(source['cwd'])
    home = Path() if cwd == Path.cwd() else cwd

    def restored(value: Any, kind: type) -> Any:
        if isinstance(value, list):
            return [restored(item, kind) for item in value]
        return home / value if kind is Path and value is not None else value

    for name, kind in SOURCE_OPTIONS.items():
        # Bags elsewhere have their truth elsewhere.
        has_moved = name in _BAG_OPTIONS and any(is_given[one] for one in _BAG_OPTIONS)
        if not is_given[name] and not has_moved:
            setattr(args, name, restored(source.get(name), kind))


def shard_lines(metrics: Mapping[str, Any], number: ShardNumber, out: Path) -> list[str]:
    """List what a shard has done, and what comes next; the last line is its folder."""
    num_videos = metrics['run']['num_videos']
    mine = len(number.positions(num_videos))
    failed = len({failure['video'] for failure in metrics['failures']})
    lines = [f'Shard {number}: {mine - failed} of {mine} videos done ({num_videos} in all)']
    if not mine:
        lines = [f'Shard {number} has nothing to do: there are only {num_videos} videos']
    if failed:
        lines.append(f'{failed} of {mine} videos failed')
    lines.append(f'When all shards are done: videomt evaluate --merge {out.parent}')
    return [*lines, str(out)]
