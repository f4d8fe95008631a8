"""Load the network that the node's parameters name; imported with torch at the first configure."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from videomt_ros.engines.build import build_engine, choose_dtype, load_onnx
from videomt_ros.engines.engine import Engine, EngineError
from videomt_ros.engines.programs import Size
from videomt_ros.inference import VideoStream
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import VideoNetwork, load_model
from videomt_ros.model.device import choose_device
from videomt_ros.model.onnx_files import is_onnx
from videomt_ros.ros.parameters import NodeParameters, Parameters

_DEFAULT_THREADS = torch.get_num_threads()


def load_engine(parameters: Parameters, warn: Callable[[str], object]) -> Engine:
    """Load the model, and run it on a blank image of each camera.

    The blank images reveal a lack of memory and a precision that the device does not support
    before the first images come, which are then not delayed by the start-up of a GPU or by
    compiling. Where the chosen engine cannot be built, the network itself is the engine.

    Args:
        parameters: values of all parameters.
        warn: called with the reason if the chosen engine cannot be built.

    Raises:
        ValueError: the model, device or precision is not available; says which and what to do.
        OSError: a file of the model cannot be read.
    """
    common = parameters.common
    if not common.model:
        raise ValueError(
            'Expected a model, got none. Set the parameter model to a file, a folder, a hub name '
            'or a name that `videomt models` lists.'
        )
    device = choose_device(common.device)
    cameras = [parameters.of_camera(name) for name in common.cameras or ('',)]
    try:
        if is_onnx(common.model):
            engine = load_onnx(
                common.model, common.engine, device, common.precision, common.providers
            )
        else:
            engine = _build(parameters, device, cameras, warn)
        parameters.check_input_sizes(engine.config)
        for camera in cameras:
            if is_onnx(common.model) and not camera.image_width:
                continue  # the file may take one size alone, which is not known to be this one
            stream = VideoStream(
                engine, camera.stream_task(), input_size=camera.input_size or None
            )
            stream.push(np.zeros((*_image_size(camera), 3), np.uint8), 0)
    except RuntimeError as error:  # torch's errors, such as out of memory
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'The model does not run on {device} in precision {common.precision}: {reason} '
            'Choose another device or precision.'
        ) from error
    return engine


def _build(
    parameters: Parameters,
    device: torch.device,
    cameras: Sequence[NodeParameters],
    warn: Callable[[str], object],
) -> Engine:
    """Load a checkpoint and build its engine, or keep the network where that is not possible."""
    common = parameters.common
    net = load_model(common.model).to(
        device, choose_dtype(common.precision, device, common.engine)
    )
    parameters.check_input_sizes(net.config)
    try:
        return build_engine(
            net,
            common.engine,
            _frame_sizes(net, cameras),
            waits=False,
            providers=common.providers,
        )
    except EngineError as error:
        warn(f'The network runs with the engine eager: {error}')
        return net


def _image_size(camera: NodeParameters) -> tuple[int, int]:
    """Return the height and width of the images that are expected of a camera."""
    return camera.image_height or 480, camera.image_width or 640


def _frame_sizes(net: VideoNetwork, cameras: Sequence[NodeParameters]) -> list[Size]:
    """List the sizes of the batches that the cameras may make: of one frame, and of all."""
    counts = Counter(
        Geometry.of(_image_size(camera), net.config, camera.input_size or None).padded_size
        for camera in cameras
    )
    is_batched = net.device.type == 'cuda'
    return sorted(
        {
            Size(batch, *size)
            for size, count in counts.items()
            for batch in {1, min(count, cameras[0].max_batch) if is_batched else 1}
        }
    )


def set_threads(number: int) -> None:
    """Set the largest number of CPU threads of one operation; 0 is the libraries' own choice.

    It applies to the calling thread, and to each that starts later.
    """
    torch.set_num_threads(number or _DEFAULT_THREADS)
    cv2.setNumThreads(number or -1)


def describe_engine(engine: Engine) -> dict[str, str]:
    """Write the model, engine, device, precision and memory of an engine and of the process."""
    device = engine.device
    values = {
        'model': engine.config.name,
        'engine': engine.engine_name,
        'device': str(device),
        'precision': str(engine.dtype).removeprefix('torch.'),
        'process_memory_mb': f'{_resident_bytes() / 2**20:.0f}',
    }
    if device.type == 'cuda':
        values['device_memory_mb'] = f'{torch.cuda.memory_allocated(device) / 2**20:.0f}'
        reserved = torch.cuda.memory_reserved(device)
        values['device_memory_reserved_mb'] = f'{reserved / 2**20:.0f}'
    return values


def _resident_bytes() -> int:
    """Measure the memory of this process; 0 where the system does not tell."""
    try:
        pages = Path('/proc/self/statm').read_text(encoding='ascii').split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()
