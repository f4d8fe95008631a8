"""`videomt benchmark model`: time network and frame, beside the port in transformers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import count
from videomt_ros.cli.benchmark_cameras import FRAME, add_network_options
from videomt_ros.cli.benchmark_report import Report, digits

if TYPE_CHECKING:
    from videomt_ros.speed.frame import Comparison, Side


def add_model(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark model` and its options."""
    text = 'time a step of the network and a whole frame to 1280 x 720 masks'
    parser = choices.add_parser('model', help=text, description=text)
    parser.set_defaults(run=benchmark_model)
    parser.add_argument('--size', choices=('S', 'B', 'L'), default='S', help='ViT; default: S')
    parser.add_argument(
        '--image-size',
        type=count,
        nargs=2,
        default=(640, 640),
        metavar=('HEIGHT', 'WIDTH'),
        help="the network's input; equal, since transformers takes squares; default: 640 640",
    )
    add_network_options(parser)


def benchmark_model(args: argparse.Namespace) -> int:
    """Time the network beside transformers and print the table."""
    height, width = args.image_size
    if height != width:
        raise ValueError(
            f"Expected a square --image-size, got {height} x {width}: transformers' port takes "
            'squares alone.'
        )
    import torch

    from videomt_ros.engines.build import choose_dtype
    from videomt_ros.model.device import choose_device
    from videomt_ros.speed.frame import compare
    from videomt_ros.speed.machine import engine_modules, header
    from videomt_ros.speed.transformers_port import port_sizes

    device = choose_device(args.device)
    dtype = choose_dtype(args.precision, device, args.engine)
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
            engine=args.engine,
            repeats=args.repeats,
        )
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f'{device} has too little memory for ViT-{args.size} at {height} x {width} in '
            f'{dtype}. Choose a smaller --size or --image-size.'
        ) from error
    number_format = str(dtype).removeprefix('torch.')
    report = Report(
        args,
        'model',
        header(device, 'torch', 'timm', 'transformers', *engine_modules(args.engine)),
        network=f'ViT-{args.size}, engine {args.engine}, {number_format}, batch 1; '
        f'{about_weights(comparison)}',
        **about_frames(comparison),
        peaks=comparison.analysis.about(),
    )
    for side, times in (('videomt_ros', comparison.ours), ('transformers', comparison.port)):
        report.add(
            side=side,
            input_size=times.input_size,
            num_segments=times.num_segments,
            median_ms={part: times.median_ms(part) for part in times.samples_ms},
            samples_ms=times.samples_ms,
        )
    report.add(side='videomt_ros', step=comparison.analysis.as_json())
    report.table(rows(comparison.ours, comparison.port, args.repeats))
    report.table(comparison.analysis.rows())
    ours, port = comparison.ours.median_ms('frame'), comparison.port.median_ms('frame')
    report.end(
        f'A frame takes {digits(ours)} ms here and {digits(port)} ms with transformers, '
        f'{port / ours:.2f} times as long.'
    )
    return 0


def about_weights(comparison: Comparison) -> str:
    """Describe the network of a comparison."""
    config = comparison.config
    return (
        f'{config.num_queries} queries, {config.num_classes} classes; the same random weights on '
        f'both sides (on one input the mask logits differ by {comparison.difference:.1g} at most)'
    )


def about_frames(comparison: Comparison) -> dict[str, str]:
    """Describe the frames of a comparison, and the segments in them."""
    ours, port = comparison.ours, comparison.port
    patches = [
        side.input_size[0] * side.input_size[1] // comparison.config.patch_size**2
        for side in (ours, port)
    ]
    return {
        'frames': f'random, {FRAME[1]} x {FRAME[0]} (width x height), host to host. Input of the '
        f'network, height x width: transformers {_size(port.input_size)}, squeezed '
        f'({patches[1]} patches); videomt_ros {_size(ours.input_size)}, aspect kept '
        f'({patches[0]} patches)',
        'segments': f'videomt_ros {ours.num_segments}, transformers {port.num_segments}, by a '
        f'class head fitted to let that many queries pass. videomt_ros tracks them, settles '
        f'overlaps per pixel and resizes masks twice, as published; transformers paints one mask '
        f'over the other',
    }


def _size(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def rows(ours: Side, port: Side, repeats: int) -> list[tuple[str, ...]]:
    """Build the table: the time of each part on both sides, and their ratio."""
    cells: list[tuple[str, ...]] = [
        (f'median of {repeats}, ms', 'videomt_ros', 'transformers', 'ratio')
    ]
    for name, part in (
        (f'step of the network, {_size(port.input_size)} on both sides', 'step'),
        (f'whole frame to {FRAME[1]} x {FRAME[0]} masks', 'frame'),
        ('- image to input', 'prepare'),
        ('- network', 'network'),
        ('- masks to segments', 'finish'),
        ('processor time of a step, all threads', 'step_cpu'),
        ('processor time of a frame, all threads', 'frame_cpu'),
    ):
        a, b = ours.median_ms(part), port.median_ms(part)
        cells.append((name, digits(a), digits(b), f'{b / a:.2f}'))
    return cells
