"""`videomt benchmark model`: time network and frame, VidEoMT's beside the port in transformers."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from videomt_ros.cli.argument_types import count
from videomt_ros.cli.benchmark_cameras import FRAME, add_network_options
from videomt_ros.cli.benchmark_report import Report, digits

if TYPE_CHECKING:
    import torch

    from videomt_ros.speed.frame import Comparison, Side


def add_model(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark model` and its options."""
    text = 'time a step of the network and a whole frame to 1280 x 720 masks'
    parser = choices.add_parser('model', help=text, description=text)
    parser.set_defaults(run=benchmark_model)
    parser.add_argument(
        '--network',
        choices=('videomt', 'pmt', 'lvmt'),
        default='videomt',
        help='videomt runs beside transformers, pmt and lvmt (with DINOv3), which it does not '
        'have, run alone; default: videomt',
    )
    parser.add_argument('--size', choices=('S', 'B', 'L'), default='S', help='ViT; default: S')
    parser.add_argument(
        '--image-size',
        type=count,
        nargs=2,
        default=(640, 640),
        metavar=('HEIGHT', 'WIDTH'),
        help="the network's input; equal, since transformers takes squares; pmt and lvmt take an "
        'input of as many patches with the aspect of the frames; default: 640 640',
    )
    add_network_options(parser)


def benchmark_model(args: argparse.Namespace) -> int:
    """Time the network and print the tables.

    Raises:
        ValueError: the input is no square, or the device has too little memory.
    """
    height, width = args.image_size
    if height != width:
        raise ValueError(
            f"Expected a square --image-size, got {height} x {width}: transformers' port takes "
            'squares alone.'
        )
    import torch

    from videomt_ros.engines.build import choose_dtype
    from videomt_ros.model.device import choose_device

    device = choose_device(args.device)
    dtype = choose_dtype(args.precision, device, args.engine)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        run = _beside_transformers if args.network == 'videomt' else _alone
        return run(args, height, device, dtype)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f'{device} has too little memory for ViT-{args.size} at {height} x {width} in '
            f'{dtype}. Choose a smaller --size or --image-size.'
        ) from error


def _alone(
    args: argparse.Namespace, image_size: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Time PMT or LVMT, and print the tables."""
    from videomt_ros.model.config import VIT_SIZES, NetworkConfig
    from videomt_ros.speed.frame import matching_test_size, measure
    from videomt_ros.speed.machine import engine_modules, header
    from videomt_ros.speed.transformers_port import SIZE_NAMES

    sizes: dict[str, Any] = dict(VIT_SIZES[SIZE_NAMES[args.size]])
    config = NetworkConfig(
        num_classes=40,
        architecture='pmt',
        family='dinov3',
        num_query_blocks=6,
        propagation='gru' if args.network == 'lvmt' else 'fusion',
        **sizes,
    )
    config = replace(config, test_size=matching_test_size(config, image_size, FRAME))
    side, analysis = measure(
        config,
        frame=FRAME,
        num_segments=args.segments,
        device=device,
        dtype=dtype,
        engine=args.engine,
        repeats=args.repeats,
    )
    report = Report(
        args,
        'model',
        header(device, 'torch', 'timm', *engine_modules(args.engine)),
        network=f'{args.network.upper()} with ViT-{args.size}, engine {args.engine}, '
        f'{_format(dtype)}, batch 1, {config.num_queries} queries, {config.num_classes} classes; '
        'random weights',
        frames=f'random, {FRAME[1]} x {FRAME[0]} (width x height), host to host. Input of the '
        f'network, height x width: {_size(side.input_size)}',
        segments=f'{side.num_segments}, by a class head fitted to let {args.segments} queries '
        'pass',
        peaks=analysis.about(),
    )
    report.add(side='videomt_ros', **_times(side), step=analysis.as_json())
    cells = [(f'median of {args.repeats}, ms', 'videomt_ros')]
    named = _parts(f'step of the network, {_size(side.input_size)}')
    cells += [(name, digits(side.median_ms(part))) for name, part in named]
    report.table(cells)
    report.table(analysis.rows())
    report.end(f'A frame takes {digits(side.median_ms("frame"))} ms.')
    return 0


def _times(side: Side) -> dict[str, Any]:
    return {
        'input_size': side.input_size,
        'num_segments': side.num_segments,
        'median_ms': {part: side.median_ms(part) for part in side.samples_ms},
        'samples_ms': side.samples_ms,
    }


def _format(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _beside_transformers(
    args: argparse.Namespace, height: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Time VidEoMT beside transformers, and print the tables."""
    from videomt_ros.speed.frame import compare
    from videomt_ros.speed.machine import engine_modules, header
    from videomt_ros.speed.transformers_port import port_sizes

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
    report = Report(
        args,
        'model',
        header(device, 'torch', 'timm', 'transformers', *engine_modules(args.engine)),
        network=f'ViT-{args.size}, engine {args.engine}, {_format(dtype)}, batch 1; '
        f'{about_weights(comparison)}',
        **about_frames(comparison),
        peaks=comparison.analysis.about(),
    )
    report.add(side='videomt_ros', **_times(comparison.ours))
    report.add(side='transformers', **_times(comparison.port))
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
    for name, part in _parts(f'step of the network, {_size(port.input_size)} on both sides'):
        a, b = ours.median_ms(part), port.median_ms(part)
        cells.append((name, digits(a), digits(b), f'{b / a:.2f}'))
    return cells


def _parts(step: str) -> tuple[tuple[str, str], ...]:
    """Name the parts of a frame in the table, and their keys in `Side.samples_ms`."""
    return (
        (step, 'step'),
        (f'whole frame to {FRAME[1]} x {FRAME[0]} masks', 'frame'),
        ('- image to input', 'prepare'),
        ('- network', 'network'),
        ('- masks to segments', 'finish'),
        ('processor time of a step, all threads', 'step_cpu'),
        ('processor time of a frame, all threads', 'frame_cpu'),
    )
