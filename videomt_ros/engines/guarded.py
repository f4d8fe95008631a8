"""GuardedEngine: an engine whose results are compared with those of another one before use."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from videomt_ros.engines.differences import TOLERANCE, compare, find_wrong
from videomt_ros.engines.engine import Engine
from videomt_ros.errors import one_line
from videomt_ros.model.network import Outputs

logger = logging.getLogger(__name__)

_NUM_FRAMES = 3


class GuardedEngine:
    """Runs a fast engine while it computes what a trusted one does, and else the trusted one.

    Both are compared on `_NUM_FRAMES` random frames before the first frames of each size. After a
    failure, the trusted engine runs all frames.
    """

    def __init__(self, fast: Engine, trusted: Engine, names: tuple[str, str]) -> None:
        """Start with no size checked.

        Args:
            fast: the engine to be checked.
            trusted: an engine of the same network, device and number format.
            names: what a log calls them.
        """
        self.running = fast
        """Engine that runs the frames."""
        self.config, self.engine_name = fast.config, fast.engine_name
        self._trusted = trusted
        self._names = names
        self._checked: set[tuple[int, int, int]] = set()

    @property
    def device(self) -> torch.device:
        """Device of the frames, the state and the outputs."""
        return self.running.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frames, the state and the outputs."""
        return self.running.dtype

    def digest(self) -> str:
        """Hash the configuration and all weights, as 16 hexadecimal digits."""
        return self.running.digest()

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""
        return self.running.initial_state(batch_size)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each; see `VideoNetwork.step`."""
        if self.running is not self._trusted:
            self._guard(frames)
        return self.running.step(frames, state)

    def _guard(self, frames: Tensor) -> None:
        """Compare the engines where frames of this size are new."""
        batch_size, _, height, width = frames.shape
        size = (batch_size, height, width)
        if size in self._checked:
            return
        try:
            differences = compare(
                self.running, self._trusted, _NUM_FRAMES, batch_size, height, width
            )
            wrong = find_wrong(differences, TOLERANCE[self.dtype])
        except Exception as error:  # no memory, say; those of onnxruntime are of no other class
            wrong = one_line(error)
        if wrong:
            logger.error(
                'Expected %s to compute what %s does, for frames of %d x %d: %s. The latter runs '
                'from now on.',
                *self._names, height, width, wrong,
            )  # fmt: skip
            self.running = self._trusted
        self._checked.add(size)
