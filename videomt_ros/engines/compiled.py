"""CompiledEngine: the network as a program compiled for the size of the frames."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

import torch
from torch import Tensor

from videomt_ros.engines.cuda_graph import capture
from videomt_ros.engines.differences import TOLERANCE, compare, find_wrong
from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.programs import Size, Step, load_program
from videomt_ros.errors import one_line
from videomt_ros.model import VideoNetwork
from videomt_ros.model.network import Outputs

_logger = logging.getLogger(__name__)

MAX_SIZES = 8
"""Number of sizes whose programs are kept; the one that was used longest ago goes first."""

_CHECKED_FRAMES = 3
"""Number of random frames on which a new program is compared with the network."""


class CompiledEngine:
    """Runs programs of one network, each compiled for one size of frames.

    Frames of a size that has no program yet are run by the network itself, while another thread
    gets the program; so a camera that changes its size goes on. On a GPU every step is captured in
    a CUDA graph, that of the network itself too. On a CPU batches run frame by frame, since they
    gain nothing there.
    """

    engine_name = 'compiled'

    def __init__(self, net: VideoNetwork, waits: bool = False) -> None:
        """Start without programs.

        Args:
            net: network on its device, in evaluation mode.
            waits: whether a step of a new size waits for its program, so that results do not
                depend on the time that compiling takes, as in evaluations.
        """
        self.net, self.config = net, net.config
        self.device, self.dtype = net.device, net.dtype
        self._digest = net.digest()
        self._waits = waits
        self._lock = threading.Lock()
        self._programs: OrderedDict[Size, Step] = OrderedDict()
        self._graphs: OrderedDict[Size, tuple[Step, Step]] = OrderedDict()
        """The step that was captured for each size, and its graph; the last one used is last."""
        self._failed: dict[Size, EngineError] = {}
        self._getting: threading.Thread | None = None

    def digest(self) -> str:
        """Hash the configuration and all weights, as 16 hexadecimal digits."""
        return self._digest

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""
        return self.net.initial_state(batch_size)

    def prepare(self, size: Size) -> None:
        """Get the program of a size, and check that it computes what the network does.

        Raises:
            EngineError: the program could not be compiled, or computes something else.
        """
        if size in self._failed:  # a second attempt would take as long
            raise self._failed[size]
        try:
            program = load_program(self.net, self._digest, size)
            try:
                differences = compare(program, self.net, _CHECKED_FRAMES, *size)
            except RuntimeError as error:  # no memory for both, or a kernel that fails
                raise EngineError(
                    f'The program for frames of {size} does not run: {one_line(error)}. '
                    'Choose the engine eager.'
                ) from None
            if wrong := find_wrong(differences, TOLERANCE[self.dtype]):
                raise EngineError(
                    f'The program for frames of {size} does not compute what the network does: '
                    f'{wrong}. Choose the engine eager, and report it.'
                )
        except EngineError as error:
            self._failed[size] = error
            raise
        self._keep(size, program.step)

    @torch.inference_mode()
    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each; see `VideoNetwork.step`.

        Raises:
            ValueError: frames or state have another shape.
            EngineError: the engine waits for programs, and there is none for this size.
            RuntimeError: the engine waits for programs, and no graph of this one can be captured.
        """
        self.net.check_inputs(frames, state)
        if self.device.type == 'cuda':
            return self._graph(frames, state)(frames, state)
        size = Size.of(frames[:1])
        parts = [
            self._program(size)(frames[n : n + 1], state[n : n + 1]) for n in range(len(frames))
        ]
        if len(parts) == 1:
            return parts[0]
        outputs = Outputs(
            torch.cat([part.class_logits for part, _ in parts]),
            torch.cat([part.mask_logits for part, _ in parts]),
            torch.cat([part.embeddings for part, _ in parts]),
        )
        return outputs, torch.cat([state for _, state in parts])

    def _graph(self, frames: Tensor, state: Tensor) -> Step:
        """Return the graph of the program for these frames; it is captured where it is new."""
        size = Size.of(frames)
        program = self._program(size)
        known = self._graphs.pop(size, None)
        # Not by identity: a bound method is another object each time that it is looked up.
        if known is None or known[0] != program:
            known = None  # its memory may be needed
            known = program, self._captured(program, frames, state)
        self._graphs[size] = known
        while len(self._graphs) > MAX_SIZES:
            self._graphs.popitem(last=False)
        return known[1]

    def _captured(self, program: Step, frames: Tensor, state: Tensor) -> Step:
        """Capture a program in a graph.

        Where that is not possible, an engine that waits for programs fails, so that figures are
        those of a graph, and another one runs the program itself.
        """
        try:
            return capture(program, frames, state)
        except RuntimeError as error:  # no memory, or the program makes the host wait
            if self._waits:
                raise
            _logger.error(
                'Frames of %s run without a CUDA graph, which takes longer: %s',
                Size.of(frames),
                one_line(error),
            )
            return program

    def _program(self, size: Size) -> Step:
        """Return the program of a size, or the network itself until there is one."""
        with self._lock:
            if size in self._programs:
                self._programs.move_to_end(size)
                return self._programs[size]
            if not self._waits:
                if self._getting is None:
                    # A daemon, so that the interpreter can exit while the program is compiled.
                    self._getting = threading.Thread(
                        target=self._get, args=(size,), name='compile', daemon=True
                    )
                    self._getting.start()
                return self.net.step
        self.prepare(size)
        return self._programs[size]

    def _get(self, size: Size) -> None:
        """Get a program in a thread of its own; without one, the network itself is kept."""
        try:
            self.prepare(size)
        except Exception as error:
            if not isinstance(error, EngineError):
                _logger.debug('No program', exc_info=True)
            _logger.error('Frames of %s run eagerly: %s', size, error)
            self._keep(size, self.net.step)
        else:
            _logger.info('The program for frames of %s is ready.', size)
        with self._lock:
            self._getting = None

    def _keep(self, size: Size, program: Step) -> None:
        with self._lock:
            self._programs[size] = program
            while len(self._programs) > MAX_SIZES:
                self._programs.popitem(last=False)
