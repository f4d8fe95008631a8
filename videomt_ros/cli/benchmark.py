"""`videomt benchmark`: measure speed on this machine.

`benchmark model` times the network and a whole frame, beside the port in `transformers`;
`benchmark stream` times the stages of a frame for several sizes of images, without ROS;
`benchmark cameras` times rounds of several cameras that share one network;
`benchmark score` times the scoring of result files, beside a plain loop, and needs no torch;
`benchmark train` times the parts of a training step; `benchmark node` times the running node and
alone needs ROS.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import count
from videomt_ros.cli.benchmark_cameras import FRAME, add_cameras, add_network_options
from videomt_ros.cli.benchmark_node import add_node
from videomt_ros.cli.benchmark_stream import add_stream
from videomt_ros.cli.benchmark_train import add_train

if TYPE_CHECKING:
    from videomt_ros.speed.frame import Comparison

HELP = 'measure speed on this machine: of the network, scoring, training and the node'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be measured, and the options of each."""
    choices = parser.add_subparsers(metavar='what', required=True)
    text = 'time a step of the network and a whole frame to 1280 x 720 masks'
    model = choices.add_parser('model', help=text, description=text)
    model.set_defaults(run=benchmark_model)
    model.add_argument('--size', choices=('S', 'B', 'L'), default='S', help='ViT; default: S')
    model.add_argument(
        '--image-size',
        type=count,
        nargs=2,
        default=(640, 640),
        metavar=('HEIGHT', 'WIDTH'),
        help="the network's input; equal, since transformers takes squares; default: 640 640",
    )
    add_network_options(model)
    add_stream(choices)
    add_cameras(choices)

    text = 'time video AP beside the loop over pairs of tracks that it replaces'
    score = choices.add_parser('score', help=text, description=text)
    score.set_defaults(run=benchmark_score)
    score.add_argument('--videos', type=count, default=300, help='number of videos; default: 300')
    score.add_argument(
        '--results',
        type=count,
        default=3000,
        help='number of results in all videos; default: 3000',
    )
    score.add_argument(
        '--objects',
        type=count,
        default=12,
        help='number of true objects in each video; the more, the larger the ratio; default: 12',
    )
    score.add_argument('--seed', type=int, default=0, help='seed of the random case; default: 0')
    score.add_argument(
        '--repeats', type=count, default=1, help='times that each side is timed; default: 1'
    )
    add_train(choices)
    add_node(choices)


def main(args: argparse.Namespace) -> int:
    """Run the measurement that was chosen."""
    return args.run(args)


def benchmark_model(args: argparse.Namespace) -> int:
    """Time the network beside transformers and print the table."""
    import torch

    from videomt_ros.model.device import choose_device, choose_precision
    from videomt_ros.speed.frame import compare
    from videomt_ros.speed.machine import hardware, versions
    from videomt_ros.speed.transformers_port import port_sizes

    height, width = args.image_size
    if height != width:
        raise ValueError(
            f"Expected a square --image-size, got {height} x {width}: transformers' port takes "
            'squares alone.'
        )
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        comparison = compare(
            port_sizes(args.size),
            image_size=height,
            frame=FRAME,
            num_segments=args.segments,
            device=device,
            dtype=dtype,
            repeats=args.repeats,
        )
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f'{device} has too little memory for ViT-{args.size} at {height} x {width} in '
            f'{dtype}. Choose a smaller --size or --image-size.'
        ) from error
    print(f'hardware: {hardware(device)}')
    print(f'versions: {versions("torch", "timm", "transformers")}')
    number_format = str(dtype).removeprefix('torch.')
    print(f'network: ViT-{args.size}, {number_format}, batch 1; {about(comparison)}')
    print()
    for row in table(comparison, args.repeats):
        print(row)
    print()
    ours, port = comparison.ours.frame_ms, comparison.port.frame_ms
    print(
        f'A frame takes {ours:.{digits(ours)}f} ms here and {port:.{digits(port)}f} ms with '
        f'transformers, {port / ours:.2f} times as long.'
    )
    return 0


def benchmark_score(args: argparse.Namespace) -> int:
    """Time video AP beside the plain loop, and check that both give the same figures."""
    from videomt_ros.speed import scoring
    from videomt_ros.speed.machine import cpu_name, versions

    case = scoring.make_case(args.videos, args.results, args.objects, args.seed)
    height, width = scoring.SIZE
    print(f'hardware: {cpu_name()}, 1 thread')
    print(f'versions: {versions("numpy", "pycocotools")}')
    print(
        f'case: {args.videos} videos of {scoring.NUM_FRAMES} frames of {width} x {height} '
        f'pixels, {args.objects} objects of one category in each; {args.results} results, '
        f'{scoring.count_pairs(case)} pairs of a result and an object; seed {args.seed}'
    )
    print('timed: from run-length codes in memory to all figures, without reading files')
    comparison = scoring.compare_scoring(case, args.repeats)
    print()
    for name, seconds in (('videomt_ros', comparison.ours_s), ('pairs', comparison.plain_s)):
        print(f'{name:<11} {seconds:7.2f} s of the CPU, median of {args.repeats}')
    print(f'memory of videomt_ros: {comparison.peak_bytes / 1e6:.1f} MB over that of the case')
    print(f'figures: differ by {comparison.difference:.1g} at most')
    print()
    if comparison.difference > scoring.TOLERANCE:
        raise ValueError(
            f'Expected the same figures from both ways, within {scoring.TOLERANCE:g}, but '
            f'they differ by {comparison.difference:.3g}: {comparison.figures}. Please report it.'
        )
    print(f'The loop over pairs takes {comparison.ratio:.1f} times as long.')
    return 0


def about(comparison: Comparison) -> str:
    """Describe the conditions of a comparison."""
    config, ours, port = comparison.config, comparison.ours, comparison.port
    patches = [
        side.input_size[0] * side.input_size[1] // config.patch_size**2 for side in (ours, port)
    ]
    return (
        f'{config.num_queries} queries, {config.num_classes} classes; the same random weights on '
        f'both sides (on one input the mask logits differ by {comparison.difference:.1g} at '
        f'most).\n'
        f'frames: random, {FRAME[1]} x {FRAME[0]} (width x height), host to host. Input of the '
        f'network, height x width: transformers {_size(port.input_size)}, squeezed '
        f'({patches[1]} patches); videomt_ros {_size(ours.input_size)}, aspect kept '
        f'({patches[0]} patches).\n'
        f'segments: videomt_ros {ours.num_segments}, transformers {port.num_segments}, by a class '
        f'head fitted to let that many queries pass. videomt_ros tracks them, settles overlaps '
        f'per pixel and resizes masks twice, as published; transformers paints one mask over the '
        f'other.'
    )


def _size(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def table(comparison: Comparison, repeats: int) -> list[str]:
    """Build the Markdown rows: the time of each part on both sides, and their ratio."""
    ours, port = comparison.ours, comparison.port
    cells = [(f'median of {repeats}, ms', 'videomt_ros', 'transformers', 'ratio')]
    for name, field in (
        (f'step of the network, {_size(port.input_size)} on both sides', 'step_ms'),
        (f'whole frame to {FRAME[1]} x {FRAME[0]} masks', 'frame_ms'),
        ('- image to input', 'prepare_ms'),
        ('- network', 'network_ms'),
        ('- masks to segments', 'finish_ms'),
    ):
        a, b = getattr(ours, field), getattr(port, field)
        cells.append((name, f'{a:.{digits(a)}f}', f'{b:.{digits(b)}f}', f'{b / a:.2f}'))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    rows = [
        f'| {row[0]:<{widths[0]}} | '
        + ' | '.join(f'{cell:>{width}}' for cell, width in zip(row[1:], widths[1:], strict=True))
        + ' |'
        for row in cells
    ]
    rule = '|' + '|'.join(
        '-' * (width + 1) + ('-' if column == 0 else ':') for column, width in enumerate(widths)
    )
    return [rows[0], f'{rule}|', *rows[1:]]


def digits(milliseconds: float) -> int:
    """Return the number of decimals for three significant figures."""
    return 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2
