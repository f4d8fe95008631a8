"""OnnxEngine: runs an ONNX file of `videomt export` with onnxruntime."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videomt_ros.engines.differences import OUTPUTS
from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.onnx_providers import (
    check_taken,
    choose_providers,
    import_onnxruntime,
    provider_options,
)
from videomt_ros.errors import one_line
from videomt_ros.model.backbone import check_frames
from videomt_ros.model.network import Outputs
from videomt_ros.model.onnx_files import onnx_config, read_onnx_metadata
from videomt_ros.model.weight_files import CheckpointError

logger = logging.getLogger(__name__)

INPUTS = ('frame', 'query_in')
"""Names of the inputs of the graph; the outputs are named `OUTPUTS`."""

_TYPES = {'tensor(float)': torch.float32, 'tensor(float16)': torch.float16}
_NUMPY_TYPES = {torch.float32: np.float32, torch.float16: np.float16}


class OnnxEngine:
    """Runs the step of the network in an ONNX file.

    Frames, state and outputs are torch's memory on its device: nothing is copied.
    """

    engine_name = 'onnxruntime'

    def __init__(
        self,
        path: Path,
        device: torch.device | None = None,
        providers: str | Sequence[str] = 'auto',
    ) -> None:
        """Load a file.

        Args:
            path: file that `videomt export` wrote.
            device: device of the frames, the state and the outputs; None: the CPU.
            providers: what onnxruntime computes with, see `choose_providers`.

        Raises:
            CheckpointError: the file can't be read, or is no such file.
            EngineError: onnxruntime is not installed, or a provider was not taken or fails.
        """
        self.path = path
        self.device = torch.device('cpu') if device is None else device
        metadata = read_onnx_metadata(path)
        self.config = onnx_config(path, metadata)
        chosen = choose_providers(providers, self.device)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait for the next frame would take a core each from the rest of the node.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3  # errors; warnings tell of memory that is not reused
        try:
            self._session = onnxruntime.InferenceSession(
                path,
                options,
                providers=[(name, provider_options(name, self.device, path)) for name in chosen],
                enable_fallback=0,
            )
        except Exception as error:  # a damaged graph can fail in any way, and so can a provider
            kind = CheckpointError if self.device.type == 'cpu' else EngineError
            raise kind(
                f'{path}: onnxruntime {onnxruntime.__version__} cannot load it with '
                f'{", ".join(chosen)}: {one_line(error)}'
            ) from None
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        """Names of the execution providers that onnxruntime took, the first first."""
        check_taken(chosen, self.providers)
        self._read_inputs()
        self._queries = self._read_queries(metadata['initial_queries'])
        self._digest = ''
        logger.info(
            '%s runs on %s with %d threads, %s.',
            path, self.providers[0], options.intra_op_num_threads, self._describe_shape(),
        )  # fmt: skip

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the only frames that the file takes; None: any."""
        height, width = self._shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    @property
    def fixed_batch(self) -> int | None:
        """Number of frames that the file takes at once; None: any."""
        return self._shape[0] if isinstance(self._shape[0], int) else None

    def digest(self) -> str:
        """Hash the file, as 16 hexadecimal digits."""
        if not self._digest:
            digest = hashlib.sha256()
            with self.path.open('rb') as file:
                while block := file.read(2**20):
                    digest.update(block)
            self._digest = digest.hexdigest()[:16]
        return self._digest

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""
        return self._queries.expand(batch_size, -1, -1)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each; see `VideoNetwork.step`.

        A file of fixed batch runs once for each part of the batch.

        Raises:
            ValueError: frames or state have another shape, type or device than the file takes.
        """
        self._check(frames, state)
        results = self._empty_results(frames)
        frames, state = frames.contiguous(), state.contiguous()
        if self.device.type == 'cuda':
            # onnxruntime computes in a stream of its own, and waits for it before it returns.
            torch.cuda.current_stream(self.device).synchronize()
        size = self.fixed_batch or len(frames)
        for begin in range(0, len(frames), size):
            part = slice(begin, begin + size)
            self._run(frames[part], state[part], [result[part] for result in results])
        class_logits, mask_logits, embeddings, next_state = results
        return Outputs(class_logits, mask_logits, embeddings), next_state

    def _empty_results(self, frames: Tensor) -> list[Tensor]:
        """Make room for the outputs of a batch; new, since callers keep those of other steps."""
        config = self.config
        scale = 2**config.num_upscale_blocks
        grid = [side // config.patch_size * scale for side in frames.shape[2:]]
        shape = (len(frames), config.num_queries)
        return [
            torch.empty(*shape, *rest, dtype=self.dtype, device=self.device)
            for rest in ((config.num_classes + 1,), grid, (config.embed_dim,), (config.embed_dim,))
        ]

    def _run(self, frames: Tensor, state: Tensor, results: Sequence[Tensor]) -> None:
        """Run the graph on contiguous tensors, and write into the results."""
        binding = self._session.io_binding()
        for names, tensors, bind in (
            (INPUTS, (frames, state), binding.bind_input),
            (OUTPUTS, results, binding.bind_output),
        ):
            for name, tensor in zip(names, tensors, strict=True):
                bind(
                    name,
                    self.device.type,
                    self.device.index or 0,
                    _NUMPY_TYPES[self.dtype],
                    tuple(tensor.shape),
                    tensor.data_ptr(),
                )
        self._session.run_with_iobinding(binding)

    def _check(self, frames: Tensor, state: Tensor) -> None:
        check_frames(frames, self.config.patch_size)
        size = (frames.shape[2], frames.shape[3])
        if self.fixed_size and size != self.fixed_size:
            raise ValueError(
                f'{self.path} takes frames of {self.fixed_size[0]} x {self.fixed_size[1]} '
                f'alone, got {size[0]} x {size[1]}. Export it for this camera '
                '(videomt export --image-size WIDTHxHEIGHT), or with --dynamic size.'
            )
        if frames.shape[0] % (self.fixed_batch or 1):
            raise ValueError(
                f'{self.path} takes {self.fixed_batch} frames at once, got {frames.shape[0]}. '
                'Export it with --dynamic batch.'
            )
        expected = (frames.shape[0], self.config.num_queries, self.config.embed_dim)
        if tuple(state.shape) != expected:
            raise ValueError(
                f'Expected a state of shape {expected}, got {tuple(state.shape)}. '
                'Start a video with initial_state(batch_size).'
            )
        for tensor in (frames, state):
            if tensor.dtype != self.dtype or tensor.device.type != self.device.type:
                raise ValueError(
                    f'{self.path} takes {self.dtype} on {self.device}, got {tensor.dtype} on '
                    f'{tensor.device}.'
                )

    def _read_inputs(self) -> None:
        """Find type and shape of the frames."""
        inputs = {entry.name: entry for entry in self._session.get_inputs()}
        outputs = tuple(entry.name for entry in self._session.get_outputs())
        if tuple(inputs) != INPUTS or outputs != OUTPUTS:
            raise CheckpointError(
                f'{self.path}: expected the inputs {", ".join(INPUTS)} and the outputs '
                f'{", ".join(OUTPUTS)}, got {", ".join(inputs)} and {", ".join(outputs)}. '
                'Export it again.'
            )
        frame = inputs[INPUTS[0]]
        if frame.type not in _TYPES:
            raise CheckpointError(
                f'{self.path}: expected frames in {" or ".join(_TYPES)}, got {frame.type}.'
            )
        self.dtype = _TYPES[frame.type]
        """Type of the frames, the state and the outputs."""
        self._shape: list[Any] = frame.shape

    def _read_queries(self, text: str) -> Tensor:
        """Decode the initial queries, (1, Q, C)."""
        shape = (1, self.config.num_queries, self.config.embed_dim)
        try:
            queries = np.frombuffer(base64.b64decode(text, validate=True), '<f4').reshape(shape)
        except ValueError as error:
            raise CheckpointError(
                f'{self.path}: the initial queries: expected {shape} in float32: {error}. '
                'Export it again.'
            ) from None
        return torch.from_numpy(queries.astype(np.float32)).to(self.device, self.dtype)

    def _describe_shape(self) -> str:
        size = f'{self.fixed_size[0]} x {self.fixed_size[1]}' if self.fixed_size else 'any size'
        batch = f'batches of {self.fixed_batch}' if self.fixed_batch else 'any batch'
        return f'{str(self.dtype).removeprefix("torch.")}, {size}, {batch}'
