"""The memory of a step, part by part: weights, and the peak of what is alive beside them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from videomt_ros.model import VideoNetwork
from videomt_ros.speed.parts import PARTS, watch_parts

_MARKER = 'end of part '
"""First words of the events that mark changes of part in a trace."""


def weight_bytes(net: VideoNetwork) -> int:
    """Count the bytes of all weights and buffers."""
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.inference_mode()
def peak_bytes(net: VideoNetwork, frames: Tensor) -> dict[str, int]:
    """Measure the largest memory of each part of a step beyond that before the step.

    On a GPU the counters of torch's allocator are read at each change of part; on a CPU torch's
    profiler records every allocation. Memory that libraries take past torch's allocator, as some
    kernels do for a while, is not seen.

    Args:
        net: network.
        frames: input (B, 3, H, W) on the device and in the type of the network; it is not counted.

    Returns:
        Bytes of each of `parts.PARTS`. What an earlier part left for a later one counts in both.
    """
    state = net.initial_state(len(frames))
    net.step(frames, state)  # what is made once, such as tables of positions, is no part of a step
    measure = _peaks_on_gpu if frames.device.type == 'cuda' else _peaks_on_cpu
    return measure(net, frames, state)


def _peaks_on_gpu(net: VideoNetwork, frames: Tensor, state: Tensor) -> dict[str, int]:
    peaks = dict.fromkeys(PARTS, 0)
    before = torch.cuda.memory_allocated(frames.device)
    torch.cuda.reset_peak_memory_stats(frames.device)

    def leave(part: str) -> None:
        peak = torch.cuda.max_memory_allocated(frames.device) - before
        peaks[part] = max(peaks[part], peak)
        torch.cuda.reset_peak_memory_stats(frames.device)

    with watch_parts(net, leave):
        net.step(frames, state)
    return peaks


def _peaks_on_cpu(net: VideoNetwork, frames: Tensor, state: Tensor) -> dict[str, int]:
    """Read the allocations of a step from the trace of torch's profiler."""
    # Or the profiler prints when it starts and that there is no GPU.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    markers: list[str] = []

    def leave(part: str) -> None:
        markers.append(part)
        with record_function(f'{_MARKER}{len(markers) - 1}'):
            pass

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            leave('')  # the step begins
            with watch_parts(net, leave):
                outputs = net.step(frames, state)
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding='utf-8'))['traceEvents']
    del outputs
    return _peaks_of(events, markers)


def _peaks_of(events: list[dict[str, Any]], markers: list[str]) -> dict[str, int]:
    """Add up the allocations between neighbouring markers, in the order of time."""
    peaks = dict.fromkeys(PARTS, 0)
    events = [
        event
        for event in events
        if event.get('name') == '[memory]' or str(event.get('name')).startswith(_MARKER)
    ]
    alive = peak = 0
    is_in_step = False
    for event in sorted(events, key=lambda event: float(event['ts'])):
        if event['name'] != '[memory]':
            part = markers[int(event['name'].removeprefix(_MARKER))]
            if part:
                peaks[part] = max(peaks[part], peak)
            is_in_step, peak = True, alive
        elif is_in_step:
            alive += int(event['args']['Bytes'])
            peak = max(peak, alive)
    return peaks
