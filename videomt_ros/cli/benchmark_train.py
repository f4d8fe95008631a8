"""`videomt benchmark train`: measure where the time of a training step goes."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import count

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
    from videomt_ros.speed.machine import hardware
    from videomt_ros.speed.training_step import measure

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    times = measure(settings, args.steps, args.synthetic)
    print(f'hardware: {hardware(times.device)}')
    for line in about(times):
        print(line)
    print()
    for row in table(times):
        print(row)
    print()
    clips = times.settings.phases[0].batch_size
    print(
        f'A step takes {times.total:.3g} s: {clips / times.total:.3g} clips a second, '
        f'{times.peak_bytes / 1e9:.2f} GB at most.'
    )
    return 0


def about(times: StepTimes) -> list[str]:
    """Describe what was measured, in a few lines."""
    import torch

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
    return [
        f'network: {network.family}, {network.depth} blocks of {network.embed_dim} channels, '
        f'{network.num_queries} queries, propagation {network.propagation}; '
        + ', '.join([times.precision, *options, f'torch {torch.__version__}']),
        f'batch: {phase.batch_size} {"clip" if phase.batch_size == 1 else "clips"}{parts}, each '
        f'of {phase.clip_frames} {"frame" if phase.clip_frames == 1 else "frames"}{chunks}; '
        f'input, height x width: {span}',
        f'data: {data}, {drawn}',
    ]


def table(times: StepTimes) -> list[str]:
    """Build the Markdown rows: the seconds of each part of a step, and its share."""
    named = [*times.seconds.items(), ('step', times.total)]
    width = max(len(name) for name, _ in named)
    rows = [f'| {"":<{width}} | seconds |  share |', f'|{"-" * (width + 2)}|--------:|-------:|']
    for name, seconds in named:
        share = 100 * seconds / times.total
        rows.append(f'| {name:<{width}} | {seconds:7.4f} | {share:4.0f} % |')
    return rows
