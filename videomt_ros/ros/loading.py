"""Load the network that the node's parameters name; imported with torch at the first configure."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import torch

from videomt_ros.inference import VideoStream
from videomt_ros.model import VidEoMT, load_model
from videomt_ros.model.device import choose_device, choose_precision
from videomt_ros.ros.parameters import NodeParameters

_DEFAULT_THREADS = torch.get_num_threads()


def load_network(parameters: NodeParameters) -> VidEoMT:
    """Load the model and run it on one blank image.

    The blank image reveals a lack of memory and a precision that the device does not support
    before the first image of the camera, which is then not delayed by a GPU's start-up.

    Raises:
        ValueError: the model, device or precision is not available; says which and what to do.
        OSError: a file of the model cannot be read.
    """
    if not parameters.model:
        raise ValueError(
            'Expected a model, got none. Set the parameter model to a file, a folder, a hub name '
            'or a name that `videomt models` lists.'
        )
    device = choose_device(parameters.device)
    dtype = choose_precision(parameters.precision, device)
    net = load_model(parameters.model).to(device, dtype)
    try:
        stream = VideoStream(net, parameters.stream_task())
        stream.push(np.zeros((480, 640, 3), np.uint8), 0)
    except RuntimeError as error:  # torch's errors, such as out of memory
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'The model does not run on {device} in {dtype}: {reason} '
            'Choose another device or precision.'
        ) from error
    return net


def set_threads(number: int) -> None:
    """Set the largest number of CPU threads of one operation; 0 is the libraries' own choice.

    It applies to the calling thread, and to each that starts later.
    """
    torch.set_num_threads(number or _DEFAULT_THREADS)
    cv2.setNumThreads(number or -1)


def describe_network(net: VidEoMT) -> dict[str, str]:
    """Write the name, device, precision and memory of a network and of the process."""
    weight = next(net.parameters())
    values = {
        'model': net.config.name,
        'device': str(weight.device),
        'precision': str(weight.dtype).removeprefix('torch.'),
        'process_memory_mb': f'{_resident_bytes() / 2**20:.0f}',
    }
    if weight.device.type == 'cuda':
        values['device_memory_mb'] = f'{torch.cuda.memory_allocated(weight.device) / 2**20:.0f}'
        reserved = torch.cuda.memory_reserved(weight.device)
        values['device_memory_reserved_mb'] = f'{reserved / 2**20:.0f}'
    return values


def _resident_bytes() -> int:
    """Measure the memory of this process; 0 where the system does not tell."""
    try:
        pages = Path('/proc/self/statm').read_text(encoding='ascii').split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()
