"""`videomt benchmark stream`: time a frame from image to results, stage by stage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from videomt_ros.cli.argument_types import add_device_options, count, image_size
from videomt_ros.cli.benchmark_report import Report, add_json_option

if TYPE_CHECKING:
    from videomt_ros.engines.engine import Engine
    from videomt_ros.speed.stream import FrameTimes

SIZES = ((640, 480), (1280, 720), (1920, 1080))
"""Sizes (width, height) of the images by default."""


def add_stream(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark stream` and its options."""
    text = 'time a frame from image to results: input, network, masks, tracks, encoding, overlay'
    parser = choices.add_parser('stream', help=text, description=f'{text}. Needs no ROS.')
    parser.set_defaults(run=benchmark_stream)
    add_device_options(parser)
    parser.add_argument('--model', default='demo', help='model that sees drawn scenes; or none')
    parser.add_argument(
        '--objects',
        type=count,
        nargs='+',
        default=(10,),
        help='numbers of made-up objects, for which no network runs; default: 10',
    )
    parser.add_argument(
        '--task',
        choices=('instance', 'panoptic', 'semantic'),
        default='instance',
        help='results of made-up objects; default: instance',
    )
    parser.add_argument(
        '--sizes',
        type=image_size,
        nargs='+',
        default=SIZES,
        metavar='WIDTHxHEIGHT',
        help='of the images; default: 640x480 1280x720 1920x1080',
    )
    parser.add_argument('--threads', type=count, default=1, help='CPU threads; default: 1')
    parser.add_argument('--repeats', type=count, default=20, help='timed frames; default: 20')
    add_json_option(parser)


def benchmark_stream(args: argparse.Namespace) -> int:
    """Time the frames and print one table for each network."""
    import cv2
    import torch

    from videomt_ros.engines.build import load_engine
    from videomt_ros.model.config import Task
    from videomt_ros.model.device import choose_device
    from videomt_ros.speed.frame import random_images
    from videomt_ros.speed.machine import engine_modules, header
    from videomt_ros.speed.stream import MadeNetwork, draw_scene, time_frames

    assert args.task in get_args(Task)
    sizes = [(height, width) for width, height in args.sizes]
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    device = choose_device(args.device)
    machine = header(device, 'torch', 'timm', 'numpy', 'cv2', *engine_modules(args.engine))
    report = Report(args, 'stream', machine)
    if args.model != 'none':
        engine = load_engine(args.model, args.engine, device, args.precision)
        times = [time_frames(engine, draw_scene(size), args.repeats) for size in sizes]
        _show(report, f'{args.model} on drawn scenes, {_named(engine)}', times, args.repeats)
    for number in args.objects:
        times = [
            time_frames(MadeNetwork(number, size, args.task), random_images(size), args.repeats)
            for size in sizes
        ]
        title = f'{number} made-up objects, {args.task}, no network'
        _show(report, title, times, args.repeats)
    report.end()
    return 0


def _show(report: Report, title: str, times: Sequence[FrameTimes], repeats: int) -> None:
    for entry in times:
        report.add(
            network=title,
            height=entry.frame[0],
            width=entry.frame[1],
            num_segments=entry.num_segments,
            median_ms=entry.stages_ms,
            samples_ms=entry.samples_ms,
        )
    report.table(rows(title, times, repeats))


def _named(engine: Engine) -> str:
    number_format = str(engine.dtype).removeprefix('torch.')
    return f'engine {engine.engine_name}, {number_format}'


def rows(title: str, times: Sequence[FrameTimes], repeats: int) -> list[list[str]]:
    """Build the table: the time of each stage for each size of images."""
    sizes = [f'{entry.frame[1]} x {entry.frame[0]}' for entry in times]
    cells = [[f'{title}; median of {repeats}, ms', *sizes]]
    for stage in times[0].stages_ms:
        cells.append([stage, *(f'{entry.stages_ms[stage]:.2f}' for entry in times)])
    without = [
        sum(ms for stage, ms in entry.stages_ms.items() if stage not in ('network', 'overlay'))
        for entry in times
    ]
    cells.append(['all but network and overlay', *(f'{ms:.2f}' for ms in without)])
    cells.append(['segments', *(str(entry.num_segments) for entry in times)])
    return cells
