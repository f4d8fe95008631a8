"""Time and memory of several networks on one encoder, beside the same networks with one each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from videomt_ros.model import NetworkConfig, NetworkGroup, VideoNetwork, build_network, load_models
from videomt_ros.model.config import VIT_SIZES
from videomt_ros.speed.clock import wall_and_cpu_ms
from videomt_ros.speed.transformers_port import SIZE_NAMES

WARM_UP = 2
"""Number of steps of each side before the clock counts."""
NUM_CLASSES = (40, 124)
"""Numbers of classes of the random decoders, in turns: those of YTVIS and of VIPSeg."""


@dataclass(frozen=True)
class Side:
    """Times and weights of one way to run the networks."""

    name: str
    wall_ms: list[float]
    """Milliseconds of each step by the clock."""
    cpu_ms: list[float]
    """The same in processor time of all threads."""
    weight_bytes: int
    """Memory of all weights, each counted once."""

    @property
    def median_ms(self) -> float:
        """Median time of a step by the clock."""
        return median(self.wall_ms)

    @property
    def median_cpu_ms(self) -> float:
        """Median processor time of a step, which other load on the machine does not count in."""
        return median(self.cpu_ms)


def random_networks(size: str, number: int) -> NetworkGroup:
    """Build LVMT networks with random weights, which share a DINOv3 encoder.

    Args:
        size: S, B or L.
        number: number of networks.
    """
    nets: list[VideoNetwork] = []
    fields: dict[str, Any] = {
        'architecture': 'pmt',
        'family': 'dinov3',
        'num_query_blocks': 6,
        'propagation': 'gru',
        **VIT_SIZES[SIZE_NAMES[size]],
    }
    for n in range(number):
        config = NetworkConfig(NUM_CLASSES[n % len(NUM_CLASSES)], name=f'random {n + 1}', **fields)
        nets.append(build_network(config).eval())
        nets[n].backbone.load_state_dict(nets[0].backbone.state_dict())
    return NetworkGroup(nets)


def load_shared(models: Sequence[str | Path]) -> NetworkGroup:
    """Load models that share one encoder.

    Raises:
        ValueError: they do not share one; says why.
    """
    group = load_models(models)
    if group.apart:
        raise ValueError(
            f'Expected models that share an encoder: {"; ".join(group.apart.values())}.'
        )
    return group


@torch.inference_mode()
def compare(
    group: NetworkGroup, input_size: tuple[int, int], repeats: int, batch_size: int = 1
) -> list[Side]:
    """Time steps of the networks in turns: the first alone, all with an encoder each, and shared.

    Args:
        group: networks that share an encoder, on their device and in their dtype.
        input_size: (height, width) of the frames in pixels, multiples of the patch size.
        repeats: number of steps timed on each side.
        batch_size: number of frames of a step.
    """
    device, dtype = group[0].device, group[0].dtype
    apart = [group[0], *(copy.deepcopy(net) for net in group[1:])]
    frames = torch.randn(batch_size, 3, *input_size, device=device, dtype=dtype)

    def one_by_one(nets: Sequence[VideoNetwork], states: list[Tensor]) -> list[Tensor]:
        pairs = zip(nets, states, strict=True)
        return [net.step(frames, state)[1] for net, state in pairs]

    def together(states: list[Tensor]) -> list[Tensor]:
        return [state for _, state in group.step(frames, states)]

    number = len(group)
    sides: dict[str, tuple[Callable[[list[Tensor]], list[Tensor]], Iterable[VideoNetwork]]] = {
        'one network': (lambda states: one_by_one(group[:1], states), group[:1]),
        f'{number} networks': (lambda states: one_by_one(apart, states), apart),
        f'{number} decoders on one encoder': (together, group),
    }
    states = {
        name: [net.initial_state(batch_size) for net in nets] for name, (_, nets) in sides.items()
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for n in range(WARM_UP + repeats):
        for name, (step, _) in sides.items():

            def run(name: str = name, step: Callable[[list[Tensor]], list[Tensor]] = step) -> None:
                states[name] = step(states[name])

            times_ms = wall_and_cpu_ms(run, device)
            if n >= WARM_UP:
                samples[name].append(times_ms)
    return [
        Side(
            name,
            [wall_ms for wall_ms, _ in samples[name]],
            [cpu_ms for _, cpu_ms in samples[name]],
            _weight_bytes(nets),
        )
        for name, (_, nets) in sides.items()
    ]


def _weight_bytes(nets: Iterable[VideoNetwork]) -> int:
    """Count the bytes of the weights and buffers of networks, each tensor once."""
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for net in nets
        for tensor in (*net.parameters(), *net.buffers())
    }
    return sum(tensors.values())
