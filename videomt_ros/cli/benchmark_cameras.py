"""`videomt benchmark cameras`: time rounds of several cameras that share one network."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from videomt_ros.cli.argument_types import add_device_options, count
from videomt_ros.cli.benchmark_report import Report, add_json_option

FRAME = (720, 1280)
"""Size (height, width) of the camera's images."""


def add_cameras(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark cameras` and its options."""
    text = 'time rounds of several cameras that share one network'
    parser = choices.add_parser('cameras', help=text, description=text)
    parser.set_defaults(run=benchmark_cameras)
    add_network_options(parser)
    parser.add_argument('--model', default='demo', help='on drawn scenes; default: demo')
    parser.add_argument(
        '--size',
        choices=('S', 'B', 'L'),
        help='a ViT with random weights on random images instead, input as 640 x 640',
    )
    parser.add_argument(
        '--cameras',
        type=count,
        nargs='+',
        default=(1, 2, 4, 6),
        help='numbers of cameras to try; default: 1 2 4 6',
    )
    parser.add_argument(
        '--pipeline-depth',
        type=int,
        choices=(1, 2),
        default=1,
        help='2 starts each round before the one before is finished, for a GPU; default: 1',
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of each measurement that runs a network on made-up images."""
    add_device_options(parser)
    parser.add_argument(
        '--threads', type=count, help='number of CPU threads; default: those of torch'
    )
    parser.add_argument(
        '--segments',
        type=count,
        default=10,
        help='number of segments in each frame, on both sides; default: 10',
    )
    parser.add_argument(
        '--repeats', type=count, default=10, help='timed frames on each side; default: 10'
    )
    add_json_option(parser)


def benchmark_cameras(args: argparse.Namespace) -> int:
    """Time rounds of several cameras and print the table."""
    import torch

    from videomt_ros.datasets.synthetic.scene import Scene
    from videomt_ros.engines.build import build_engine, choose_dtype, load_engine
    from videomt_ros.engines.engine import Engine
    from videomt_ros.model.device import choose_device
    from videomt_ros.speed.cameras import build_network, time_rounds
    from videomt_ros.speed.frame import NUM_IMAGES, random_images
    from videomt_ros.speed.machine import engine_modules, header
    from videomt_ros.speed.transformers_port import port_sizes

    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.size:
        net = build_network(
            port_sizes(args.size),
            image_size=640,
            frame=FRAME,
            num_segments=args.segments,
            device=device,
            dtype=choose_dtype(args.precision, device, args.engine),
        )
        engine: Engine = build_engine(net, args.engine)
        images = random_images(FRAME)
        what = f'ViT-{args.size}, random weights; random images, {args.segments} segments in each'
    else:
        engine = load_engine(args.model, args.engine, device, args.precision)
        images = [image for image, _ in Scene(5, *FRAME, num_frames=NUM_IMAGES).frames()]
        what = f'{args.model}; drawn scenes'
    number_format = str(engine.dtype).removeprefix('torch.')
    report = Report(
        args,
        'cameras',
        header(device, 'torch', 'timm', *engine_modules(args.engine)),
        network=f'{what}; engine {args.engine}, {number_format}; '
        f'images: {FRAME[1]} x {FRAME[0]} (width x height)',
    )
    cells: list[tuple[str, ...]] = [
        (
            'cameras',
            f'round, ms (median of {args.repeats})',
            'network, ms',
            'CPU, ms',
            'frames/s',
            'GPU, MB',
        )
    ]
    for entry in time_rounds(engine, images, args.cameras, args.repeats, args.pipeline_depth):
        report.add(
            median_ms={'round': entry.round_ms, 'network': entry.network_ms, 'cpu': entry.cpu_ms},
            frames_per_s=entry.frames_per_s,
            **asdict(entry),
        )
        cells.append(
            (
                str(entry.cameras),
                f'{entry.round_ms:.1f}',
                f'{entry.network_ms:.1f}',
                f'{entry.cpu_ms:.1f}',
                f'{entry.frames_per_s:.1f}',
                f'{entry.memory_bytes / 2**20:.0f}',
            )
        )
    report.table(cells, left=0)
    report.end()
    return 0
