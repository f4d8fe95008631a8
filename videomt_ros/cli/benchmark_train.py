"""`videomt benchmark train`: measure where the time of a training step goes."""

from __future__ import annotations

import argparse
import logging
from statistics import mean, median
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import count
from videomt_ros.cli.benchmark_report import Report, add_json_option

if TYPE_CHECKING:
    from videomt_ros.speed.training_step import StepTimes


def add_train(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark train` and its options."""
    text = 'time the steps of a training run: data, forward, matching, losses, backward, optimiser'
    parser = choices.add_parser(
        'train',
        help=text,
        description=f'{text}. Of the last phase of the run file, and of one process of its run.',
    )
    parser.set_defaults(run=benchmark_train)
    parser.add_argument('--config', required=True, help='run file, as for `videomt train`')
    parser.add_argument('--steps', type=count, default=10, help='timed; default: 10')
    parser.add_argument(
        '--synthetic',
        action='store_true',
        help="drawn clips of the sizes that the run's images have, and random weights: the data "
        'set and the weights to start from need not be at hand',
    )
    add_json_option(parser)
    parser.add_argument(
        'overrides',
        nargs='*',
        metavar='key=value',
        help='settings that replace those of the run file, such as precision=bf16 workers=8',
    )


def benchmark_train(args: argparse.Namespace) -> int:
    """Time the steps and print the table."""
    from videomt_ros.training.run_file import load_settings

    # Read before torch and Lightning are imported, so that a wrong setting is named at once.
    settings = load_settings(args.config, args.overrides)
    from videomt_ros.speed.machine import header
    from videomt_ros.speed.training_step import measure

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    times = measure(settings, args.steps, args.synthetic)
    machine = header(times.device, 'torch', 'timm', 'lightning')
    report = Report(args, 'train', machine, **about(times))
    report.add(
        steps=args.steps,
        median_s={part: median(samples) for part, samples in times.samples_s.items()},
        samples_s=times.samples_s,
        peak_bytes=times.peak_bytes,
    )
    report.table(rows(times))
    clips = times.settings.phases[0].batch_size
    report.end(
        f'A step takes {times.total:.3g} s: {clips / times.total:.3g} clips a second, '
        f'{times.peak_bytes / 1e9:.2f} GB at most.'
    )
    return 0


def about(times: StepTimes) -> dict[str, str]:
    """Describe what was measured: network, batch and data."""
    settings = times.settings
    network, (phase,) = settings.network, settings.phases
    chunks = f', in chunks of {phase.chunk_frames}' if phase.chunk_frames else ''
    parts = f' in {settings.accumulate} parts' if settings.accumulate > 1 else ''
    sizes = [f'{height} x {width}' for height, width in times.sizes]
    span = f'{sizes[0]} to {sizes[-1]}' if len(sizes) > 1 else sizes[0]
    data = ', '.join(source.dataset for source in settings.data) or 'synthetic'
    workers = f'{settings.workers} {"process" if settings.workers == 1 else "processes"}'
    drawn = f'drawn ahead by {workers}' if settings.workers else 'drawn when it is asked for'
    options = [name for name in ('activation_checkpointing', 'compile') if getattr(settings, name)]
    return {
        'network': f'{network.family}, {network.depth} blocks of {network.embed_dim} channels, '
        f'{network.num_queries} queries, propagation {network.propagation}; '
        + ', '.join([times.precision, *options]),
        'batch': f'{phase.batch_size} {"clip" if phase.batch_size == 1 else "clips"}{parts}, each '
        f'of {phase.clip_frames} {"frame" if phase.clip_frames == 1 else "frames"}{chunks}; '
        f'input, height x width: {span}',
        'data': f'{data}, {drawn}',
    }


def rows(times: StepTimes) -> list[tuple[str, ...]]:
    """Build the table: the mean and the median seconds of each part, and its share of a step."""
    steps = [sum(step) for step in zip(*times.samples_s.values(), strict=True)]
    cells: list[tuple[str, ...]] = [('', 'seconds', 'median', 'share')]
    for name, samples in {**times.samples_s, 'step': steps}.items():
        seconds = mean(samples)
        share = f'{100 * seconds / times.total:.0f} %'
        cells.append((name, f'{seconds:.4f}', f'{median(samples):.4f}', share))
    return cells
