"""Load the models that the node's parameters name; imported with torch at the first configure."""

from __future__ import annotations

import gc
import logging
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
from videomt_ros.errors import command_text
from videomt_ros.inference import StreamFrame, VideoStream, push_together
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import NetworkGroup, VideoNetwork, load_model
from videomt_ros.model.device import choose_device
from videomt_ros.model.onnx_files import is_onnx
from videomt_ros.model.shared import different_sizes
from videomt_ros.ros.parameters import NodeParameters, Parameters

_logger = logging.getLogger(__name__)
_DEFAULT_THREADS = torch.get_num_threads()


def load_engines(parameters: Parameters, warn: Callable[[str], object]) -> list[Engine]:
    """Load the models, and run them on a blank image of each camera.

    The blank images reveal a lack of memory and a precision that the device does not support
    before the first images come, which are then not delayed by the start-up of a GPU or by
    compiling. Where the chosen engine cannot be built, the network itself is the engine.

    Args:
        parameters: values of all parameters.
        warn: called with the reason if the chosen engine cannot be built.

    Returns:
        The engine of each model, in the order of the parameter.

    Raises:
        ValueError: a model, the device or the precision is not available; says which and what to
            do.
        OSError: a file of a model cannot be read.
    """
    common = parameters.common
    names = common.all_models()
    if not names:
        raise ValueError(
            'Expected a model, got none. Set the parameter model to a file, a folder, a hub name '
            'or a name that `videomt models` lists.'
        )
    device = choose_device(common.device)
    cameras = [parameters.of_camera(name) for name in common.cameras or ('',)]
    try:
        engines = _build(parameters, device, cameras, warn)
        for camera in cameras:
            streams = [
                VideoStream(engine, camera.stream_task(), input_size=camera.input_size or None)
                for name, engine in zip(names, engines, strict=True)
                # An ONNX file may take one size alone, which is not known to be this one.
                if camera.image_width or not is_onnx(name)
            ]
            blank = np.zeros((*_image_size(camera), 3), np.uint8)
            for result in push_together([StreamFrame(stream, blank, 0) for stream in streams]):
                if isinstance(result, Exception):
                    raise result
            del streams
            gc.collect()  # the outputs of the blank image, which are large
    except RuntimeError as error:  # torch's errors, such as out of memory
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'The model does not run on {device} in precision {common.precision}: {reason} '
            'Choose another device or precision.'
        ) from error
    return engines


def _build(
    parameters: Parameters,
    device: torch.device,
    cameras: Sequence[NodeParameters],
    warn: Callable[[str], object],
) -> list[Engine]:
    """Load checkpoints and ONNX files, and build their engines.

    Where an engine cannot be built, the network is kept. Networks with equal frozen encoders share
    one.
    """
    common = parameters.common
    loaded: list[VideoNetwork | Engine] = []
    for name in common.all_models():
        try:
            if is_onnx(name):
                loaded.append(
                    load_onnx(name, common.engine, device, common.precision, common.providers)
                )
            else:
                loaded.append(load_model(name))
            parameters.check_input_sizes(loaded[-1].config)
        except ValueError as error:
            if not common.models:
                raise
            raise ValueError(f'Model {name!r}: {command_text(error)}') from error
    networks = [net for net in loaded if isinstance(net, VideoNetwork)]
    if len(networks) > 1:
        _share(NetworkGroup(networks), cameras, common.engine)
    engines: list[Engine] = []
    for net in loaded:
        if not isinstance(net, VideoNetwork):
            engines.append(net)
            continue
        net.to(device, choose_dtype(common.precision, device, common.engine))
        try:
            engine = build_engine(
                net,
                common.engine,
                _frame_sizes(net, cameras),
                waits=False,
                providers=common.providers,
            )
        except EngineError as error:
            warn(f'The network runs with the engine eager: {error}')
            engine = net
        engines.append(engine)
    return engines


def _share(group: NetworkGroup, cameras: Sequence[NodeParameters], engine: str) -> None:
    """Say in the log which models share the pass of an encoder, and why others do not."""
    reasons = list(group.apart.values())
    if not all(camera.input_size for camera in cameras):
        reasons += [f'{text}: set input_size' for text in different_sizes(group)]
    for reason in reasons:
        _logger.warning('%s.', reason)
    shared = len(group) - group.num_encoders
    if shared and engine != 'eager':
        _logger.warning(
            'The engine %s runs the encoder once for each model: with engine:=eager the models '
            'share its pass.',
            engine,
        )
    elif shared:
        _logger.info('%d models run %d encoder(s).', len(group), group.num_encoders)


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


def describe_engines(engines: Sequence[Engine]) -> list[dict[str, str]]:
    """Write model, engine, device, precision and memory of engines and of the process.

    Where there are several, `encoder` says which models share the pass of one encoder.
    """
    described = [_describe(engine) for engine in engines]
    if len(engines) > 1:
        encoders = [
            engine.encoder if isinstance(engine, VideoNetwork) else engine for engine in engines
        ]
        for values, encoder in zip(described, encoders, strict=True):
            shared = sum(encoder is other for other in encoders) > 1
            values['encoder'] = 'shared' if shared else 'own'
    return described


def _describe(engine: Engine) -> dict[str, str]:
    """Write what is known of one engine."""
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
