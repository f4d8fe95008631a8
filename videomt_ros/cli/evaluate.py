"""`videomt evaluate`: score a model on a data set, in the modes published and live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from videomt_ros.cli.argument_types import (
    add_device_options,
    add_skip_bad,
    add_stream_settings,
    count,
)
from videomt_ros.cli.evaluate_bags import (
    add_bag_arguments,
    check_sources,
    keep_truth,
    note_lines,
    open_source,
    real_time_lines,
    real_time_of,
    score_results_bag,
)
from videomt_ros.cli.evaluate_shards import (
    add_shard_arguments,
    check_shards,
    merge,
    shard_lines,
    source_record,
)

if TYPE_CHECKING:
    from videomt_ros.model.presets import Preset

HELP = 'score a model on a data set, and write the result files of its benchmark'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--model', help='model name, checkpoint or hub repository')
    parser.add_argument(
        '--dataset',
        help='ytvis2019, ytvis2021, ytvis2022, ovis, vipseg, vspw, coco or coco_panoptic',
    )
    parser.add_argument('--root', type=Path, help='folder of the data set')
    parser.add_argument('--split', help="default: the data set's validation split")
    parser.add_argument(
        '--mode',
        choices=('published', 'live', 'both'),
        default='both',
        help="published: the paper's protocol, which sees the whole video; live: frame by frame, "
        "with the ids of the node's tracker; default: both, in one pass",
    )
    parser.add_argument(
        '--limit', type=count, help='number of videos, from the first on; default: all'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder for results, figures and report; default: out/evaluate/MODEL-DATASET',
    )
    parser.add_argument(
        '--resume', action='store_true', help='keep the videos that are finished in the folder'
    )
    add_skip_bad(parser)
    add_device_options(parser)
    add_stream_settings(parser, 'for the live score, such as gap_s=2')
    add_bag_arguments(parser)
    add_shard_arguments(parser)
    parser.set_defaults(defaults=parser.parse_args([]))


def main(args: argparse.Namespace) -> int:
    """Evaluate, and print the figures.

    Returns:
        0; 1 if no video could be predicted.
    """
    begin_s = time.perf_counter()
    check_shards(args, args.defaults)
    if args.merge is not None:
        return print_merged(args)
    check_sources(args)
    if args.results_bag is not None:
        scored, folder = score_results_bag(args)
        return print_result(scored, ('live',), {}, folder)

    import jinja2  # noqa: F401 (for the report: better missed now than after hours of work)

    with TemporaryDirectory(prefix='videomt-truth-') as scratch:
        return evaluate_model(args, Path(scratch), begin_s)


def evaluate_model(args: argparse.Namespace, scratch: Path, begin_s: float) -> int:
    """Evaluate a model, and print the figures.

    Args:
        args: options that have been checked.
        scratch: empty folder for files of the data set.
        begin_s: the `time.perf_counter` at which the run began.

    Returns:
        The exit code.
    """
    from videomt_ros.evaluation.launchers import check_evaluation
    from videomt_ros.model.sources import find_source

    if note := check_evaluation(args.shard is not None):
        print(f'Note: {note}', file=sys.stderr)
    # Both are found before torch is imported, so that a wrong data set or model is named at once.
    dataset, source = open_source(args, scratch)
    find_source(args.model)
    from videomt_ros.engines.build import load_engine
    from videomt_ros.evaluation.evaluator import evaluate
    from videomt_ros.evaluation.run_folder import MODES
    from videomt_ros.evaluation.sharding import joined_group, own_device
    from videomt_ros.model.device import choose_device

    real_time = real_time_of(args)
    device = own_device(choose_device(args.device))
    net = load_engine(args.model, args.engine, device, args.precision)
    modes = MODES if args.mode == 'both' else (args.mode,)
    out = args.out or Path('out/evaluate') / f'{Path(args.model).name}-{source}'
    # A file or a hub repository may have the name of a preset, too.
    preset = find_preset(net.config.name)
    paper_score = preset.paper_score if preset else {}
    if args.shard is not None:
        out /= args.shard.folder_name
    with joined_group(args.shard) as shard, resume_hint(out):
        if shard.is_first:
            for remark in dataset.remarks():
                print(f'Note: {remark}', file=sys.stderr)
        metrics = evaluate(
            dataset,
            net,
            out,
            modes=modes,
            limit=args.limit,
            resume=args.resume,
            settings=dict(args.set),
            about={
                'model': args.model,
                'command': args.command,
                'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                **about(device),
            },
            paper_score=paper_score,
            shard=shard,
            source=source_record(args),
            real_time=real_time,
            begin_s=begin_s,
        )
    if metrics is None:
        return 0
    if args.shard is not None:
        print_failures(metrics['failures'])
        for line in shard_lines(metrics, args.shard, out):
            print(line)
        num_mine = len(args.shard.positions(metrics['run']['num_videos'])) + len(dataset.unopened)
        return exit_code(metrics['failures'], modes, num_mine)
    keep_truth(dataset, out)
    return print_result(metrics, modes, paper_score, out)


def print_merged(args: argparse.Namespace) -> int:
    """Join the shards of --merge, and print the figures; returns the exit code."""
    import jinja2  # noqa: F401 (as above)

    from videomt_ros.evaluation.run_folder import MODES

    metrics, folder = merge(args)
    run = metrics['run']
    modes = [mode for mode in MODES if mode in run['modes']]
    return print_result(metrics, modes, run['paper'], folder)


@contextmanager
def resume_hint(out: Path) -> Iterator[None]:
    """Tell how to resume a run that a full disk or Ctrl-C ends."""
    hint = f'What is finished is in {out}; --resume goes on from there.'
    try:
        yield
    except KeyboardInterrupt:
        print(f'Interrupted. {hint}', file=sys.stderr)
        raise
    except OSError as error:
        if not (out / 'run.json').exists():
            raise
        raise OSError(f'{error}. {hint}') from error


def find_preset(name: str) -> Preset | None:
    """Load the preset of this name; None if there is none."""
    from videomt_ros.model.presets import load_preset, preset_names

    return load_preset(name) if name in preset_names() else None


def about(device: Any) -> dict[str, str]:
    """Describe the hardware and the libraries that the figures come from."""
    from videomt_ros.speed.machine import hardware, versions

    return {'hardware': hardware(device), 'versions': versions('torch', 'timm')}


def print_result(
    metrics: Mapping[str, Any], modes: Sequence[str], paper_score: Mapping[str, Any], out: Path
) -> int:
    """Print figures and failures, and the path of the report last."""
    run, failures = metrics['run'], metrics['failures']
    num_all = run['num_videos'] + run.get('num_unopened', 0)
    if run['num_resumed']:
        print(f'{run["num_resumed"]} of {run["num_videos"]} videos were finished before')
    for note in note_lines(metrics, tuple(modes)):
        print(note)
    for row in table(metrics, modes, paper_score):
        print(row)
    for line in real_time_lines(metrics):
        print(line)
    if not any(mode in metrics for mode in modes):
        print('No truth: result files only')
    if speed := metrics.get('speed'):
        print(
            f'{speed["frames"]} frames in {speed["seconds"]:.1f} s: {speed["whole_fps"]:.2f} '
            f'frames/s in all, {speed["network_fps"]:.2f} of the network alone'
        )
    clocked = (metrics.get('real_time') or {}).get('failures', ())
    print_failures([*failures, *clocked])
    if failures:
        names = {each['video'] for each in failures if each['mode'] != 'truth'}
        unscored = {each['video'] for each in failures if each['mode'] == 'truth'}
        if names:
            print(f'{len(names)} of {num_all} videos failed; see metrics.json')
        if unscored:
            print(f'{len(unscored)} of {num_all} videos not scored; see metrics.json')
    for problem in metrics.get('report_problems', ()):
        print(f'Missing in the report: {problem}', file=sys.stderr)
    for mode in modes:
        print(f'Results, {mode}: {out / mode}')
    print(out / ('report.html' if (out / 'report.html').exists() else 'metrics.json'))
    return exit_code(failures, modes, num_all)


def print_failures(failures: Sequence[Mapping[str, str]]) -> None:
    """Print a line on stderr for each failure; one of several modes has one line."""
    from videomt_ros.evaluation.finishing import joined_modes

    for failure in joined_modes(failures):
        what = 'Failed, counted as missed'
        if failure['mode'] == 'truth':
            what = 'Not scored, left out of the figures'
        print(
            f'{what}: {failure["video"]} ({failure["mode"]}): {failure["error"]}', file=sys.stderr
        )


def exit_code(failures: Sequence[Mapping[str, str]], modes: Sequence[str], num_videos: int) -> int:
    """Return 1 if all of some videos have failed in all modes, else 0."""
    from videomt_ros.evaluation.finishing import nothing_left

    return int(nothing_left(failures, modes, num_videos))


def table(
    metrics: Mapping[str, Any], modes: Sequence[str], paper_score: Mapping[str, Any]
) -> list[str]:
    """Build the rows of figures: each mode, in percent, beside the paper's scores."""
    from videomt_ros.evaluation.families import family_of
    from videomt_ros.evaluation.figures import as_text

    columns = [mode for mode in modes if mode in metrics]
    if not columns:
        return []
    heads = [*columns, *([f'paper ({paper_score["benchmark"]})'] if paper_score else [])]
    paper = {}
    if paper_score:
        paper = family_of(metrics[columns[0]]['benchmark']).renamed(paper_score)
    rows = [['', *heads]]
    for name in metrics[columns[0]]['figures']:
        cells = [as_text(name, metrics[column]['figures'].get(name)) for column in columns]
        if paper_score:
            cells.append(f'{paper[name]:.1f}' if name in paper else '')
        rows.append([name, *cells])
    widths = [max(len(row[k]) for row in rows) for k in range(len(heads) + 1)]
    return [
        f'  {row[0]:<{widths[0]}}'
        + ''.join(f'  {cell:>{width}}' for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
