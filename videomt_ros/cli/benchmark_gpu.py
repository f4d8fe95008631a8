"""`videomt benchmark gpu`: networks of all sizes on a GPU, beside the port in transformers.

Each group of cases runs in a process of its own; see `videomt_ros.speed.gpu`. Rows and the JSON
file grow while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from videomt_ros.cli.argument_types import add_device_options, count, image_size, positive_number
from videomt_ros.cli.benchmark_report import Report, add_json_option, digits
from videomt_ros.speed.gpu_plan import KINDS, SIDES, Group, plan

HEAD = (
    'network', 'input', 'frames', 'measure', 'side', 'ms', 'frames/s', 'TFLOP/s', 'of peak',
    'target, or why not',
)  # fmt: skip
WIDTHS = (7, 9, 6, 22, 13, 8, 8, 8, 7, 18)
_LEFT = 5


def add_gpu(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark gpu` and its options."""
    text = 'time networks of all sizes on a GPU, beside the port in transformers'
    parser = choices.add_parser(
        'gpu',
        help=text,
        description=f'{text}: the step of the network, whole frames to masks on the host, several '
        'cameras, and the parts of a step. The most important cases come first, and rows appear '
        'as they are measured. Needs no ROS.',
    )
    parser.set_defaults(run=benchmark_gpu)
    add_device_options(parser, engine=False)
    parser.add_argument(
        '--sizes',
        nargs='+',
        choices=('S', 'B', 'L', 'tiny'),
        default=('L', 'B', 'S'),
        help='ViTs, the most important first; tiny tries out the command; default: L B S',
    )
    parser.add_argument(
        '--inputs',
        nargs='+',
        type=image_size,
        default=((640, 640), (800, 448)),
        metavar='WIDTHxHEIGHT',
        help="of the network's input, multiples of 32; default: 640x640 800x448",
    )
    parser.add_argument(
        '--frame',
        type=image_size,
        default=(1280, 720),
        metavar='WIDTHxHEIGHT',
        help="of the cameras' images; default: 1280x720",
    )
    parser.add_argument(
        '--batches',
        nargs='+',
        type=count,
        default=(1, 4, 8),
        help='numbers of frames at once; default: 1 4 8',
    )
    parser.add_argument(
        '--sides',
        nargs='+',
        choices=SIDES,
        default=SIDES,
        help='compiled, eager: this package; port, port compiled: that in transformers; recipe: '
        'the same under autocast and torch.compile(dynamic=True), as published; default: all',
    )
    parser.add_argument(
        '--cases',
        nargs='+',
        choices=KINDS,
        default=KINDS,
        help='frame: step and whole frame of one camera; batch: step of a batch; cameras: rounds '
        'of several; parts: work, time and memory of the parts of a step; default: all',
    )
    parser.add_argument(
        '--segments', type=count, default=10, help='segments in each frame; default: 10'
    )
    parser.add_argument(
        '--repeats', type=count, default=30, help='timed runs of each case; default: 30'
    )
    parser.add_argument(
        '--minutes', type=positive_number, default=10.0, help='time for all cases; default: 10'
    )
    add_json_option(parser)


def benchmark_gpu(args: argparse.Namespace) -> int:
    """Run the groups of cases one after the other, until the time is over."""
    deadline_s = time.monotonic() + 60 * args.minutes
    sizes = [(height, width) for width, height in args.inputs]
    for height, width in sizes:
        if height % 32 or width % 32:
            raise ValueError(
                f'Expected inputs whose sides are multiples of 32, got {width}x{height}.'
            )
    from videomt_ros.model.device import PRECISIONS, choose_device, choose_precision
    from videomt_ros.speed.machine import header

    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    precision = next(name for name, value in PRECISIONS.items() if value == dtype)
    report = Report(
        args,
        'gpu',
        header(device, 'torch', 'timm', 'transformers', 'numpy', 'cv2'),
        precision=precision,
        images=f'random, {args.frame[0]} x {args.frame[1]} (width x height), {args.segments} '
        f'segments in each; random weights, the same on all sides',
        columns=f'ms of the network or of a frame, medians of {args.repeats}, host and device '
        'synchronised; TFLOP/s of the networks alone over that time; of peak: of a large matrix '
        'product on this device; target: frames/s on an NVIDIA H200',
    )
    report.head(HEAD, WIDTHS, _LEFT)
    options = {
        'device': str(device),
        'precision': precision,
        'frame': args.frame[::-1],
        'segments': args.segments,
        'repeats': args.repeats,
    }
    num_failed = num_skipped = 0
    for group in plan(args.sizes, sizes, args.batches, args.sides, args.cases):
        if time.monotonic() >= deadline_s:
            num_skipped += 1
            continue
        for record in records_of(group, options, deadline_s, 30 * args.minutes):
            num_failed += 'error' in record
            report.add(**record)
            report.row(cells(record), WIDTHS, _LEFT)
    left_out = (
        f'; {num_skipped} groups of cases were left out, since {args.minutes:g} minutes were over'
        if num_skipped
        else ''
    )
    report.end(f'{num_failed} cases failed{left_out}.')
    return 0


def records_of(
    group: Group, options: dict[str, Any], deadline_s: float, longest_s: float
) -> Iterator[dict[str, Any]]:
    """Run a group in a process of its own, and the rest of it in another one if that dies.

    Args:
        group: cases to run.
        options: device, precision and so on; see `videomt_ros.speed.gpu.main`.
        deadline_s: time of the monotonic clock at which the process is ended.
        longest_s: number of seconds after which a process is ended, as one whose compiler hangs.

    Yields:
        The records of its cases, with `error` where there is no figure.
    """
    sides = list(group.sides)
    while sides:
        current, seen, reason = sides[0], set[str](), ''
        part = {'group': asdict(replace(group, sides=tuple(sides))), **options}
        for record in _records(part, min(deadline_s - time.monotonic(), longest_s)):
            if 'end' in record:
                reason = record['end']
            elif 'begin' in record:
                current = record['begin']
            else:
                seen.add(record['side'])
                yield record
        sides = [side for side in sides if side not in seen]
        if time.monotonic() >= deadline_s:
            yield from (group.failed(side, 'the time was over') for side in sides)
            return
        if sides:
            current = current if current in sides else sides[0]
            yield group.failed(current, reason)
            sides.remove(current)


def _records(options: dict[str, Any], longest_s: float) -> Iterator[dict[str, Any]]:
    """Read what the process of a group prints; the last record says how the process ended."""
    with (
        tempfile.TemporaryFile('w+') as log,
        subprocess.Popen(
            [sys.executable, '-m', 'videomt_ros.speed.gpu', json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None

        def kill() -> None:
            with suppress(ProcessLookupError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.0, longest_s), kill)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith('{'):  # libraries print, too
                    yield json.loads(line)
            code = process.wait()
        finally:
            timer.cancel()
            kill()
        log.seek(0)
        lines = log.read().strip().splitlines()
        yield {'end': f'the process ended with {code}: {lines[-1][:160] if lines else "no word"}'}


def cells(record: dict[str, Any]) -> tuple[str, ...]:
    """Write the row of a case; one that failed has its reason in place of figures."""
    height, width = record['network_input']
    first = (
        record['size'],
        f'{height} x {width}',
        str(record['batch_size']),
        record['measure'],
        record['side'],
    )
    if 'error' in record:
        return (*first, '', '', '', '', record['error'])
    if 'frames_per_s' not in record:
        rate = f'{record["peak_bytes"] / 1e6:.0f} MB'
    else:
        rate = digits(record['frames_per_s'])
    target = record.get('target_frames_per_s')
    return (
        *first,
        digits(record['median_ms']),
        rate,
        f'{record["tflops"]:.3g}',
        f'{100 * record["share_of_peak"]:.0f} %',
        f'{target:.0f}' if target else '',
    )
