"""`videomt benchmark shared`: time several decoders on one encoder, beside several networks."""

from __future__ import annotations

import argparse

from videomt_ros.cli.argument_types import add_device_options, count
from videomt_ros.cli.benchmark_report import Report, add_json_option, digits


def add_shared(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark shared` and its options."""
    text = 'time a step of several decoders on one frozen encoder, beside several networks'
    parser = choices.add_parser('shared', help=text, description=text)
    parser.set_defaults(run=benchmark_shared)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        '--size', choices=('S', 'B', 'L'), default='S', help='ViT with random weights; default: S'
    )
    source.add_argument('--models', nargs='+', help='models that share an encoder instead')
    parser.add_argument(
        '--decoders', type=count, default=2, help='number of random decoders; default: 2'
    )
    parser.add_argument(
        '--image-size',
        type=count,
        nargs=2,
        default=(480, 864),
        metavar=('HEIGHT', 'WIDTH'),
        help="the network's input; default: 480 864, for an image of 16:9",
    )
    add_device_options(parser, engine=False)
    parser.add_argument(
        '--threads', type=count, help='number of CPU threads; default: those of torch'
    )
    parser.add_argument('--repeats', type=count, default=10, help='timed steps; default: 10')
    add_json_option(parser)


def benchmark_shared(args: argparse.Namespace) -> int:
    """Time the networks and print the table.

    Raises:
        ValueError: the models share no encoder, or the input size does not suit them.
    """
    import torch

    from videomt_ros.model.device import choose_device, choose_precision
    from videomt_ros.speed.machine import header
    from videomt_ros.speed.shared import compare, load_shared, random_networks

    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    group = load_shared(args.models) if args.models else random_networks(args.size, args.decoders)
    group.to(device, choose_precision(args.precision, device))
    number_format = str(group[0].dtype).removeprefix('torch.')
    what = ', '.join(args.models) if args.models else f'LVMT on ViT-{args.size}, random weights'
    report = Report(
        args,
        'shared',
        header(device, 'torch', 'timm'),
        network=f'{what}; engine eager, {number_format}, batch 1',
        frames=f'random, {args.image_size[0]} x {args.image_size[1]} (height x width)',
    )
    sides = compare(group, tuple(args.image_size), args.repeats)
    cells = [(f'step, median of {args.repeats}', 'ms', 'processor, ms', 'weights, MB')]
    for side in sides:
        report.add(
            side=side.name,
            median_ms={'step': side.median_ms, 'step_cpu': side.median_cpu_ms},
            samples_ms={'step': side.wall_ms, 'step_cpu': side.cpu_ms},
            weight_bytes=side.weight_bytes,
        )
        cells.append(
            (
                side.name,
                digits(side.median_ms),
                digits(side.median_cpu_ms),
                f'{side.weight_bytes / 2**20:.0f}',
            )
        )
    report.table(cells)
    one, shared = sides[0], sides[-1]
    report.end(
        f'The {len(group)} decoders take {shared.median_cpu_ms / one.median_cpu_ms:.2f} times the '
        'processor time of one network.'
        if device.type == 'cpu'
        else f'The {len(group)} decoders take {shared.median_ms / one.median_ms:.2f} times as '
        'long as one network.'
    )
    return 0
