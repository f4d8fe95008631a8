"""The cases of `benchmark gpu`, in the order of their value, and the targets of the main ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

OURS = ('compiled', 'eager')
PORTS = ('port', 'recipe', 'port compiled')
SIDES = (*OURS, *PORTS)
"""Sides that are compared: this package with two engines; the port in transformers, eager;
the published recipe on the port, which is float32 weights under fp16 autocast and torch.compile
with dynamic shapes; and the port compiled by torch.compile with its defaults."""
STEP, PUSH, PIPELINED = 'step', 'push', 'push, two deep'
"""What is measured of one camera: the network alone; the image on the host to the map of segments
on the host; and the same where the next frame starts before the last one is complete."""
TARGETS = {
    ('L', STEP, 1): 350.0,
    ('L', PUSH, 1): 250.0,
    ('B', STEP, 1): 700.0,
    ('B', PUSH, 1): 400.0,
    ('S', STEP, 1): 1200.0,
    ('S', PUSH, 1): 600.0,
    ('L', 'cameras', 8): 450.0,
}
"""Frames per second that the engine `compiled` should reach on an NVIDIA H200, by size of the
network, measure and number of frames at once."""

_QUICK, _SLOW = (*OURS, 'port'), ('compiled', 'recipe', 'port compiled')
"""Sides of one camera that are measured first, and those that take longer to compile, with the
one to compare them with."""

Kind = Literal['frame', 'batch', 'cameras', 'parts']
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Group:
    """Cases that run in one process, with the sides in turns."""

    kind: Kind
    """frame: step and push of one camera; batch: step of a batch; cameras: rounds of several
    cameras; parts: work, time and memory of the parts of a step."""
    size: str
    """Size of the network."""
    input_size: tuple[int, int]
    """(height, width) of the network's input."""
    batch_size: int
    """Number of frames at once."""
    sides: tuple[str, ...]

    def failed(self, side: str, reason: str) -> dict[str, Any]:
        """Return the record of a side that cannot be measured."""
        return {
            'size': self.size,
            'network_input': self.input_size,
            'batch_size': self.batch_size,
            'measure': self.kind,
            'side': side,
            'error': reason,
        }


def plan(
    sizes: Sequence[str],
    inputs: Sequence[tuple[int, int]],
    batches: Sequence[int],
    sides: Sequence[str] = SIDES,
    kinds: Sequence[str] = KINDS,
) -> list[Group]:
    """List the groups, the most valuable first.

    Args:
        sizes: sizes of networks, the most important first.
        inputs: sizes (height, width) of the network's input, likewise.
        batches: numbers of frames at once; 1 stands for one camera.
        sides: those of `SIDES` to measure.
        kinds: kinds of cases to measure.
    """
    groups = []
    for kind, size, input_size, batch_size, wanted in _candidates(sizes, inputs, batches):
        chosen = tuple(side for side in wanted if side in sides)
        if (
            kind in kinds and chosen and not (wanted == _SLOW and chosen == _SLOW[:1])
        ):  # was measured before
            groups.append(Group(kind, size, input_size, batch_size, chosen))
    return list(dict.fromkeys(groups))


def _candidates(
    sizes: Sequence[str], inputs: Sequence[tuple[int, int]], batches: Sequence[int]
) -> Iterator[tuple[Kind, str, tuple[int, int], int, tuple[str, ...]]]:
    first, others = inputs[:1], inputs[1:]
    many = [number for number in batches if number > 1]
    if 1 in batches:
        yield from (('frame', size, first[0], 1, _QUICK) for size in sizes[:1])
    yield from (('cameras', sizes[0], first[0], number, OURS) for number in many[-1:])
    if 1 in batches:
        yield from (('frame', size, first[0], 1, _QUICK) for size in sizes[1:])
        yield from (('parts', size, first[0], 1, ('eager',)) for size in sizes)
        yield from (('frame', size, first[0], 1, _SLOW) for size in sizes)
        yield from (('frame', size, other, 1, SIDES) for other, size in product(others, sizes))
    for size_of_input, number, size in product(inputs, many, sizes):
        yield 'batch', size, size_of_input, number, (*OURS, 'port', 'recipe')
    for size_of_input, number, size in product(inputs, many, sizes):
        yield 'cameras', size, size_of_input, number, OURS
