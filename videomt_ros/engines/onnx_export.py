"""The network as an ONNX file: export, and the check against torch that each file must pass.

The graph is one stateful step, as in `VideoNetwork.step`:

    frame (B, 3, H, W), query_in (B, Q, C)
        -> class_logits (B, Q, K + 1), mask_logits (B, Q, h, w), embeddings (B, Q, C),
           query_out (B, Q, C)

B, H and W are fixed or dynamic. The metadata carry the rest of a model: its configuration and the
queries that enter a first frame.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from videomt_ros.engines.differences import OUTPUTS, Difference, compare, find_wrong
from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.onnx_engine import INPUTS, OnnxEngine
from videomt_ros.errors import one_line
from videomt_ros.files import whole_file
from videomt_ros.model.network import StepModule, VideoNetwork
from videomt_ros.model.onnx_files import SUFFIX, VERSION
from videomt_ros.model.weight_files import FORMAT

DynamicAxis = Literal['batch', 'size']
"""What may differ from call to call: the number of frames, or their height and width."""

OPSET = 20
"""Version of ONNX's operators: the first with Gelu, and one that TensorRT 10 takes."""

TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest difference from torch in float32 that a file may have in each of its outputs, relative
to the largest absolute value of that output."""

CHECKED_FRAMES = 20
"""Number of frames over which a file is compared, with the state carried from each to the next."""

MAX_BYTES = 2**31 - 2**20
"""Largest size of the weights in bytes: a protobuf message, and so a file, has less than 2 GiB."""

_MAX_BATCH = 64
_MAX_PATCHES = 4096  # along one side
_OTHER_FRAMES = 5


class ExportError(EngineError):
    """A network can't be exported, or the file differs from it."""


def export_onnx(
    net: VideoNetwork,
    path: Path,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    dynamic: Collection[DynamicAxis] = (),
    package: str = '',
) -> dict[str, Difference]:
    """Write a network as an ONNX file, if it computes what torch does.

    Both run over `CHECKED_FRAMES` random frames, each with its own state, and, with dynamic axes,
    over some of another size and number. The file appears only after that, whole.

    Args:
        net: the network, in eval mode; it stays as it is.
        path: where to, ending in .onnx.
        size: height and width of the frames in pixels, multiples of the patch size; with dynamic
            size, those of the frames that are compared.
        dtype: float32 or float16, the type of weights, frames, state and outputs.
        dynamic: axes that stay open; the others are fixed, and a fixed batch is one frame.
        package: version of this package, for the metadata.

    Returns:
        The largest difference from torch in float32, by output.

    Raises:
        ExportError: the arguments fit no export, torch cannot export the network, or the file
            differs by more than `TOLERANCES`.
    """
    _check_arguments(net, path, size, dtype, dynamic)
    reference = net
    if net.training or net.device.type != 'cpu' or net.dtype != torch.float32:
        reference = copy.deepcopy(net).to('cpu', torch.float32).eval()
    try:
        program = _trace(copy.deepcopy(reference).to(dtype), size, dynamic)
    except Exception as error:  # of any class, as where torch or onnxscript are too old
        raise ExportError(
            f'torch {torch.__version__} cannot export the network: {one_line(error)}. Install '
            'newer versions of torch and onnxscript, or report it.'
        ) from error
    program.model.metadata_props.update(_metadata(reference, package))
    import onnx  # robots that run a file need not have it

    with whole_file(path, durable=True) as file:
        onnx.save_model(program.model_proto, file)
        file.flush()
        differences = check_file(reference, OnnxEngine(Path(file.name)), size, dynamic)
        if wrong := find_wrong(differences, TOLERANCES[dtype]):
            raise ExportError(
                f'{path} was not written: expected outputs within {TOLERANCES[dtype]:g} of the '
                f'largest value of torch in float32, over {CHECKED_FRAMES} frames: {wrong}. '
                'Export float32, or report it.'
            )
    return differences


def check_file(
    net: VideoNetwork,
    engine: OnnxEngine,
    size: tuple[int, int],
    dynamic: Collection[DynamicAxis] = (),
) -> dict[str, Difference]:
    """Find the largest difference between a network in float32 and a file.

    Args:
        net: the network.
        engine: the file.
        size: height and width of the frames.
        dynamic: open axes of the file: with one, more frames follow, of another number and size.

    Returns:
        The largest difference by output.
    """
    found = compare(engine, net, CHECKED_FRAMES, 1, *size)
    if dynamic:
        # What a trace took for a constant by mistake shows at other sizes alone.
        batch_size = 3 if 'batch' in dynamic else 1
        others = compare(engine, net, _OTHER_FRAMES, batch_size, *_other_size(net, size, dynamic))
        found = {name: found[name].joined(others[name]) for name in found}
    return found


def _check_arguments(
    net: VideoNetwork,
    path: Path,
    size: tuple[int, int],
    dtype: torch.dtype,
    dynamic: Collection[DynamicAxis],
) -> None:
    if path.suffix != SUFFIX:
        raise ExportError(f'Expected a path that ends in {SUFFIX}, got {path}.')
    if dtype not in TOLERANCES:
        raise ExportError(f'Expected float32 or float16 for an ONNX file, got {dtype}.')
    unknown = set(dynamic) - set(get_args(DynamicAxis))
    if unknown:
        raise ExportError(
            f'Expected dynamic axes from {", ".join(get_args(DynamicAxis))}, got {unknown}.'
        )
    if min(size) < 1 or any(side % net.config.patch_size for side in size):
        raise ExportError(
            'Expected a height and a width that are multiples of the patch size '
            f'{net.config.patch_size}, got {size[0]} x {size[1]}.'
        )
    num_bytes = sum(weight.numel() for weight in net.parameters()) * dtype.itemsize
    if num_bytes > MAX_BYTES:
        raise ExportError(
            f'Expected less than 2 GiB of weights, which is what one ONNX file holds, got '
            f'{num_bytes / 2**30:.1f} GiB in {dtype}. Export float16.'
        )
    largest = torch.finfo(dtype).max
    bad = [name for name, weight in net.named_parameters() if weight.abs().max() > largest]
    if bad:
        raise ExportError(f'Expected weights within the range of {dtype}, got {", ".join(bad)}.')


def _trace(net: VideoNetwork, size: tuple[int, int], dynamic: Collection[DynamicAxis]) -> Any:
    """Export the step of a network, which is changed by it, as torch's ONNXProgram."""
    batch_size = 2 if 'batch' in dynamic else 1  # torch takes 1 for a constant
    frame = torch.zeros(batch_size, 3, *size, dtype=net.dtype)
    state = net.initial_state(batch_size).detach().clone()
    frame_axes: dict[int, Any] = {}
    state_axes: dict[int, Any] = {}
    if 'batch' in dynamic:
        frame_axes[0] = state_axes[0] = torch.export.Dim('batch', min=1, max=_MAX_BATCH)
    if 'size' in dynamic:
        patch_size = net.config.patch_size
        for axis, name in ((2, 'rows'), (3, 'columns')):
            frame_axes[axis] = patch_size * torch.export.Dim(name, min=1, max=_MAX_PATCHES)
    with _quiet(), torch.no_grad():
        exported = torch.export.export(
            StepModule(net).eval(),
            (frame, state),
            dynamic_shapes=(frame_axes, state_axes) if dynamic else None,
            strict=False,
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with paths of this machine
    return program


def _metadata(net: VideoNetwork, package: str) -> dict[str, str]:
    queries = net.initial_state(1)[0].detach().contiguous().numpy().astype('<f4')
    return {
        'format': FORMAT,
        'version': VERSION,
        'package': package,
        'config': json.dumps(net.config.to_dict()),
        'initial_queries': base64.b64encode(queries.tobytes()).decode(),
    }


def _other_size(
    net: VideoNetwork, size: tuple[int, int], dynamic: Collection[DynamicAxis]
) -> tuple[int, int]:
    """Choose another size of about as many pixels."""
    if 'size' not in dynamic:
        return size
    divisor = net.config.size_divisor
    return size[0] + divisor, max(divisor, size[1] - divisor)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports every step and every folded constant."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
