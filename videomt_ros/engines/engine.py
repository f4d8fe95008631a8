"""The interface between the streams and whatever runs the network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.network import Outputs


class EngineError(ValueError):
    """An engine can't be built on this machine; the message says what to do."""


class Engine(Protocol):
    """Runs the step of one network; it keeps nothing of a video, so all streams can share it.

    A `VideoNetwork` itself is the engine `eager`. Letters as in `model.network`.
    """

    config: NetworkConfig
    """Configuration of the network."""

    engine_name: str
    """Name under which users choose this kind of engine."""

    @property
    def device(self) -> torch.device:
        """Device of the frames, the state and the outputs."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frames, the state and the outputs."""

    def digest(self) -> str:
        """Hash the configuration and all weights, as 16 hexadecimal digits."""

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each; see `VideoNetwork.step`.

        What it returns stays as it is when the next step runs.
        """
