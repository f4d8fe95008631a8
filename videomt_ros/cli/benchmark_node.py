"""`videomt benchmark node`: measure what the running node adds to its network, over real DDS."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomt_ros.cli.argument_types import add_device_options, count, image_size, positive_number
from videomt_ros.cli.benchmark_report import Report

if TYPE_CHECKING:
    from videomt_ros.rig.processes import RigProcesses

SIZES = ((640, 480), (1280, 720), (1920, 1080))
"""Sizes (width, height) of the images that are measured by default."""
STAGES = ('decode', 'prepare', 'network', 'result', 'publish')
"""Stages of an image in the inference thread, as the diagnostics name them."""
_TRIAL_TIMEOUT_S = 360.0
"""Longest time to wait for the next trial, in seconds; the node may have to download its model."""


def add_node(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark node` and its options."""
    text = 'time the node over ROS 2: from image message to results, rates, processor time'
    parser = choices.add_parser(
        'node',
        help=text,
        description=f'{text}. The peak rate is the highest one with less than 5 % of the frames '
        'lost; latency and processor time are measured at half of it.',
    )
    parser.set_defaults(run=benchmark_node)
    parser.add_argument('--model', default='demo', help='default: demo')
    add_device_options(parser)
    parser.add_argument(
        '--sizes',
        type=image_size,
        nargs='+',
        default=list(SIZES),
        metavar='WIDTHxHEIGHT',
        help='of the images; default: 640x480 1280x720 1920x1080',
    )
    parser.add_argument(
        '--cameras',
        type=count,
        nargs='+',
        default=[1, 4],
        help='numbers of cameras; default: 1 4',
    )
    parser.add_argument(
        '--outputs',
        nargs='+',
        choices=('tracks', 'instances', 'semantic', 'overlay'),
        default=['tracks', 'instances'],
        help='outputs with a subscriber; default: tracks instances',
    )
    parser.add_argument(
        '--seconds', type=positive_number, default=4.0, help='length of a trial; default: 4'
    )
    parser.add_argument(
        '--max-rate',
        type=positive_number,
        default=120.0,
        help='highest rate that is tried, in Hz of each camera; default: 120',
    )
    parser.add_argument(
        '--json',
        '--out',
        type=Path,
        metavar='FILE',
        default=Path('node_speed.json'),
        help='file for all figures; default: node_speed.json',
    )


def benchmark_node(args: argparse.Namespace) -> int:
    """Run the trials of every size and number of cameras, write the file and print the table."""
    from videomt_ros.speed.machine import engine_modules, header

    report = Report(
        args,
        'node',
        header(None, 'torch', 'rclpy', 'numpy', *engine_modules(args.engine)),
        model=args.model,
        device=args.device,
        outputs=args.outputs,
        seconds=args.seconds,
    )
    results = []
    for width, height in args.sizes:
        for cameras in args.cameras:
            result = measure(args, (width, height), cameras)
            results.append(result)
            report.add(**result)
            peak = result['peak_rate_hz']
            print(
                f'{width}x{height}, {named(cameras)}: '
                + (f'{peak:.3g} Hz each' if peak else 'loses frames at every rate')
                + ' (engine {engine} on {device} in {precision})'.format_map(result),
                flush=True,
            )
    report.table(rows(results), left=0)
    report.end()
    return 0


def measure(args: argparse.Namespace, size: tuple[int, int], cameras: int) -> dict[str, Any]:
    """Start a node and its load, and collect the trials.

    Args:
        args: options of the command line.
        size: width and height of the images.
        cameras: number of cameras.

    Returns:
        The entry of this configuration in the file.

    Raises:
        ValueError: a process failed, or no trial ended in time.
    """
    from videomt_ros.rig.load import camera_names
    from videomt_ros.rig.processes import RigProcesses

    width, height = size
    search: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, RigProcesses(Path(folder)) as processes:
        options = ('model', 'device', 'precision', 'engine')
        parameters = {name: getattr(args, name) for name in options}
        if args.engine == 'compiled':  # the program for these images is made before the trials
            parameters |= {'image_width': width, 'image_height': height}
        names = {'cameras': camera_names(cameras)} if cameras > 1 else {}
        processes.start('segmenter', 'videomt_ros.ros', parameters={**parameters, **names})
        processes.start(
            'load',
            'videomt_ros.rig.load',
            [
                *('--cameras', str(cameras)),
                *('--size', str(height), str(width)),
                *('--outputs', *args.outputs),
                *('--seconds', str(args.seconds)),
                *('--max-rate', str(args.max_rate)),
                *('--pid', str(processes.pid('segmenter'))),
            ],
        )
        while True:
            event = _next_trial(processes)
            if event['kind'] == 'half':
                break
            search.append(event)
        kept_up = [trial for trial in search if trial['kept_up']]
        return {
            'width': width,
            'height': height,
            'cameras': cameras,
            'peak_rate_hz': event['peak_hz'],
            'peak': max(kept_up, key=lambda trial: trial['rate_hz'])['figures'] if kept_up else {},
            'half_rate_hz': event['rate_hz'],
            'half': event['figures'],
            **{key: event['stages'][key] for key in ('engine', 'device', 'precision')},
            'cpu_ms_per_frame': event['cpu_ms_per_frame'],
            'stages_ms': {
                key: float(value) for key, value in event['stages'].items() if key.endswith('_ms')
            },
            'batch_size_mean': float(event['stages'].get('batch_size_mean', 1)),
            'trials': [{'rate_hz': t['rate_hz'], 'kept_up': t['kept_up']} for t in search],
        }


def _next_trial(processes: RigProcesses) -> dict[str, Any]:
    deadline_s = time.monotonic() + _TRIAL_TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = processes.next_event(0.5)
        if found is not None and found[1]['event'] == 'trial':
            return found[1]
        if found is None and not processes.is_running('load'):
            break
    raise ValueError(
        f'The load ended without its trials: {processes.last_errors("load")}. The segmenter: '
        f'{processes.last_errors("segmenter")}'
    )


def named(cameras: int) -> str:
    """Write a number of cameras in words."""
    return '1 camera' if cameras == 1 else f'{cameras} cameras'


def rows(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Build the table, with a row for each size and number of cameras."""
    head = (
        'images', 'cameras', 'peak, Hz each', 'at Hz', 'p50 ms', 'p95 ms', 'p99 ms', 'network ms',
        'rest ms', 'CPU ms/frame',
    )  # fmt: skip
    cells: list[tuple[str, ...]] = [head]
    for result in results:
        half, stages = result['half'], result['stages_ms']
        rest = sum(stages.get(f'{name}_p50_ms', 0.0) for name in STAGES if name != 'network')
        peak = result['peak_rate_hz']
        latencies = [half.get(f'P{p} End-to-End Latency (ms)', float('nan')) for p in (50, 95, 99)]
        numbers = (*latencies, stages.get('network_p50_ms', float('nan')), rest)
        cells.append(
            (
                f'{result["width"]}x{result["height"]}',
                str(result['cameras']),
                f'{peak:.1f}' if peak else '-',
                f'{result["half_rate_hz"]:.1f}',
                *(f'{number:.1f}' for number in numbers),
                f'{result["cpu_ms_per_frame"]:.1f}',
            )
        )
    return cells
