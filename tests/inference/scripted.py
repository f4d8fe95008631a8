"""Hand-made sequences of logits, and a network that replays them.

Lengths are in cells of the mask grid; one cell is 4 x 4 pixels of the image, which the network
takes as it is (no resize, no padding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.made_engine import MadeEngine, made_outputs
from videomt_ros.inference import VideoStream
from videomt_ros.model import NetworkConfig, Outputs
from videomt_ros.structures import Segments

GRID = (40, 48)
IMAGE = np.zeros((160, 192, 3), np.uint8)
CAT, DOG, SKY, ROAD = range(4)
NAMES = ('cat', 'dog', 'sky', 'road')
STEP_NS = 100_000_000
"""10 frames a second."""


@dataclass(frozen=True)
class Obj:
    """What one query shows in one frame: a rectangle of a class."""

    query: int
    class_id: int
    row: int
    column: int
    height: int = 8
    width: int = 8
    score: float = 0.95
    """Probability of the class; the rest is shared by the others and no object."""
    logit: float = 8.0
    """Mask logit inside the rectangle; outside it is the negative."""
    look: tuple[float, ...] = (0.0,)
    """Embedding of the query; zeros are like nothing. All in a script have one length."""


def make_logits(
    objects: Sequence[Obj], num_queries: int = 6, grid: tuple[int, int] = GRID
) -> tuple[Tensor, Tensor]:
    """Class logits (Q, K + 1) and mask logits (Q, h, w) of one frame."""
    num_classes = len(NAMES)
    probs = np.full((num_queries, num_classes + 1), 0.001)
    probs[:, -1] = 1.0 - 0.001 * num_classes
    masks = np.full((num_queries, *grid), -8.0)
    for item in objects:
        probs[item.query] = (1.0 - item.score) / num_classes
        probs[item.query, item.class_id] = item.score
        top, left = max(0, item.row), max(0, item.column)
        bottom, right = max(0, item.row + item.height), max(0, item.column + item.width)
        masks[item.query] = -abs(item.logit)
        masks[item.query, top:bottom, left:right] = item.logit
    return torch.tensor(np.log(probs)).float(), torch.tensor(masks).float()


def make_embeddings(objects: Sequence[Obj], num_queries: int = 6) -> Tensor:
    """Embeddings (Q, C) of one frame; those of queries without an object are zeros."""
    channels = max((len(item.look) for item in objects), default=1)
    embeddings = torch.zeros(num_queries, channels)
    for item in objects:
        embeddings[item.query] = torch.tensor(item.look)
    return embeddings


class ScriptedNet(MadeEngine):
    """Replays logits; the number of the next frame is in the state, as streams share a network.

    A frame is its class logits, its mask logits and, unless they are zeros, its embeddings.
    """

    def __init__(self, frames: Sequence[tuple[Tensor, ...]], task: str = 'instance') -> None:
        self.frames = frames
        num_queries, height, width = frames[0][1].shape
        self.config = NetworkConfig(
            num_classes=len(NAMES),
            num_queries=num_queries,
            test_size=4 * min(height, width),
            size_divisor=16,
            task=task,
            class_names=NAMES,
            thing_classes=(True, True, False, False),
        )

    def initial_state(self, batch_size: int = 1) -> Tensor:
        return torch.zeros(batch_size, self.config.num_queries, 1)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        class_logits, mask_logits, *embeddings = self.frames[
            int(state[0, 0, 0]) % len(self.frames)
        ]
        outputs = made_outputs(class_logits[None], mask_logits[None])
        if embeddings:
            outputs = outputs._replace(embeddings=embeddings[0][None])
        return outputs, state + 1


def scripted_stream(
    script: Sequence[Sequence[Obj]], task: str = 'instance', num_queries: int = 6, **settings
) -> VideoStream:
    """A stream whose frames show the objects of the script, over and over."""
    frames = [
        (*make_logits(objects, num_queries), make_embeddings(objects, num_queries))
        for objects in script
    ]
    return VideoStream(ScriptedNet(frames, task), **{'confirm_frames': 1, **settings})


def play(script: Sequence[Sequence[Obj]], step_ns: int = STEP_NS, **kwargs) -> list[Segments]:
    """Results of a whole script. Tracks are confirmed at once unless a test asks otherwise."""
    stream = scripted_stream(script, **kwargs)
    return [stream.push(IMAGE, t * step_ns) for t in range(len(script))]


def ids_at(result: Segments, *objects: Obj) -> list[int]:
    """Ids that the result has at the centres of objects."""
    return [int(result.ids[4 * o.row + 2 * o.height, 4 * o.column + 2 * o.width]) for o in objects]


def summary(result: Segments) -> list[tuple]:
    """All that a result says, for comparison."""
    return [result.stamp_ns, result.ids.tobytes(), result.segments]
