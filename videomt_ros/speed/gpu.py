"""One group of cases of `benchmark gpu`, in a process of its own.

A process for each group frees all memory and compiled programs, and one that the GPU or a compiler
brings down takes no other group with it. It prints JSON, one object a line: `{"begin": side}`
before it builds a side, and a record of each case.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

from videomt_ros.model import NetworkConfig, build_network
from videomt_ros.model.device import PRECISIONS
from videomt_ros.speed.analysis import analyse
from videomt_ros.speed.clock import synchronised_ms
from videomt_ros.speed.frame import WARM_UP
from videomt_ros.speed.gpu_plan import TARGETS, Group
from videomt_ros.speed.gpu_sides import NUM_CLASSES, Measure, Pair
from videomt_ros.speed.roofline import Peaks, measure_peaks
from videomt_ros.speed.transformers_port import port_sizes
from videomt_ros.speed.work import count_work, total


@torch.inference_mode()
def run_group(
    group: Group,
    device: torch.device,
    dtype: torch.dtype,
    frame: tuple[int, int],
    num_segments: int,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Run a group of cases.

    Args:
        group: what to measure.
        device: device of all sides.
        dtype: type of weights and activations.
        frame: (height, width) of the cameras' images.
        num_segments: number of segments in each frame.
        repeats: number of timed runs of each case.

    Yields:
        `{"begin": side}` before a side is built; then the records of its cases, with a reason in
        `error` where a side failed.
    """
    if group.kind == 'parts':
        yield {'begin': 'eager'}
        yield from _parts(group, device, dtype, repeats)
        return
    pair = Pair(group, port_sizes(group.size), frame, num_segments, device, dtype)
    peaks = measure_peaks(device, dtype)
    sides: dict[str, dict[str, Measure]] = {}
    for side in group.sides:
        yield {'begin': side}
        try:
            sides[side] = measures = pair.measures(side)
            for measure in measures.values():
                for n in range(WARM_UP):
                    measure.run(n)
        except Exception as error:
            sides.pop(side, None)
            yield group.failed(side, reason_of(error))
    samples: dict[tuple[str, str], list[float]] = {
        (side, name): [] for side, measures in sides.items() for name in measures
    }
    for n in range(WARM_UP, WARM_UP + repeats):
        for (side, name), times_ms in samples.items():
            measure = sides[side][name]
            yield {'begin': side}
            times_ms.append(synchronised_ms(lambda m=measure, n=n: m.run(n), device))  # type: ignore[misc]
    for (side, name), times_ms in samples.items():
        yield _record(pair, side, name, sides[side][name], times_ms, peaks)


def _record(
    pair: Pair, side: str, name: str, measure: Measure, times_ms: list[float], peaks: Peaks
) -> dict[str, Any]:
    """Put the times of one case beside the work of its networks."""
    group, milliseconds = pair.group, median(times_ms)
    steps = measure.num_frames // measure.batch_size
    work = total(count_work(pair.net.config, measure.input_size, measure.batch_size, pair.dtype))
    flops = work.flops * steps
    return {
        'size': group.size,
        'network_input': measure.input_size,
        'batch_size': measure.batch_size,
        'measure': name,
        'side': side,
        'median_ms': milliseconds / steps,
        'frames_per_s': measure.num_frames * 1e3 / milliseconds,
        'tflops': flops / milliseconds / 1e9,
        'share_of_peak': flops / milliseconds / 1e9 / peaks.tflops,
        'peak_tflops': peaks.tflops,
        'target_frames_per_s': TARGETS.get((group.size, name, measure.batch_size))
        if side == 'compiled'
        else None,
        'samples_ms': times_ms,
    }


def _parts(
    group: Group, device: torch.device, dtype: torch.dtype, repeats: int
) -> Iterator[dict[str, Any]]:
    """Analyse the parts of a step of the eager network, without the port."""
    net = build_network(config_of(group.size)).eval().to(device, dtype)
    frames = torch.randn(group.batch_size, 3, *group.input_size, device=device, dtype=dtype)
    analysis = analyse(net, frames, repeats)
    found = analysis.as_json()
    for part, values in found['parts'].items():
        tflops = values['flops'] / values['median_ms'] / 1e9
        yield {
            'size': group.size,
            'network_input': group.input_size,
            'batch_size': group.batch_size,
            'measure': part,
            'side': 'eager',
            'tflops': tflops,
            'share_of_peak': tflops / analysis.peaks.tflops,
            'peaks': found['peaks'],
            'weight_bytes': analysis.weight_bytes,
            **values,
        }


def config_of(size: str) -> NetworkConfig:
    """Return the configuration of a size: S, B, L or tiny."""
    sizes = port_sizes(size)
    return NetworkConfig(
        num_classes=NUM_CLASSES,
        embed_dim=sizes['hidden_size'],
        depth=sizes['num_hidden_layers'],
        num_heads=sizes['num_attention_heads'],
        num_query_blocks=sizes['num_blocks'],
        num_queries=sizes.get('num_queries', NetworkConfig.num_queries),
    )


def reason_of(error: BaseException) -> str:
    """Write an error as one line of at most 200 characters."""
    text = ' '.join(''.join(traceback.format_exception_only(error)).split())
    return text if len(text) <= 200 else f'{text[:197]}...'


def main(argument: str) -> None:
    """Run the group of a JSON object and print the records."""
    options = json.loads(argument)
    group = Group(
        **{
            **options['group'],
            'input_size': tuple(options['group']['input_size']),
            'sides': tuple(options['group']['sides']),
        }
    )
    records = run_group(
        group,
        torch.device(options['device']),
        PRECISIONS[options['precision']],
        tuple(options['frame']),
        options['segments'],
        options['repeats'],
    )
    for record in records:
        print(json.dumps(record), flush=True)


if __name__ == '__main__':
    main(sys.argv[1])
