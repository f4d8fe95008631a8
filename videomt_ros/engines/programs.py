"""Programs: the step of a network compiled ahead of time for one size, and kept on disk.

torch's AOTInductor turns the step, with its weights, into a library in a file. A process of its
own compiles, so that a stream which runs meanwhile shares neither the interpreter nor torch's
compiler with it, and neither a crash of the compiler nor its memory reaches the node.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from videomt_ros.engines.cache import cache_folder, code_digest
from videomt_ros.engines.cuda_headers import compiler_environment
from videomt_ros.engines.engine import EngineError
from videomt_ros.errors import one_line
from videomt_ros.files import whole_file
from videomt_ros.model import VideoNetwork, load_model, save_model
from videomt_ros.model.cpu_kernels import faster_program
from videomt_ros.model.device import cpu_features
from videomt_ros.model.network import Outputs, StepModule

Step: TypeAlias = Callable[[Tensor, Tensor], tuple[Outputs, Tensor]]
"""A function like `VideoNetwork.step` of frames and states of one size."""


class Size(NamedTuple):
    """Size of the frames that a program takes."""

    batch: int
    height: int
    width: int

    @classmethod
    def of(cls, frames: Tensor) -> Size:
        """Get the size of frames (B, 3, H, W)."""
        return cls(frames.shape[0], frames.shape[2], frames.shape[3])

    def __str__(self) -> str:
        return f'{self.batch} x {self.height} x {self.width}'


def load_program(net: VideoNetwork, digest: str, size: Size) -> Program:
    """Load the program of a network for one size; it is compiled if it is not in the cache.

    Compiling takes a minute or more.

    Args:
        net: network on its device, in evaluation mode.
        digest: hash of its configuration and weights.
        size: size of the frames.

    Raises:
        EngineError: this torch cannot compile it, or the compiler fails; says why.
    """
    path = cache_folder('compiled') / f'{_key(net, digest, size)}.pt2'
    if not path.is_file():
        _compile_apart(net, size, path)
    try:
        package = torch._inductor.aoti_load_package(str(path), **_load_options(net.device))
    except Exception as error:  # the file may be damaged in any way
        path.unlink(missing_ok=True)  # so that the next start compiles it again
        raise EngineError(
            f'{path}: cannot be loaded, and was removed: {one_line(error)}'
        ) from None

    return Program(net, package)


def _load_options(device: torch.device) -> dict[str, Any]:
    """Return the options with which a program is loaded.

    On a GPU its weights go to the device of the network instead of the current one. One thread at
    a time runs it: the check for runs of others asks for an event, which ends the capture of a
    CUDA graph.
    """
    if device.type == 'cpu':
        return {}
    options: dict[str, Any] = {'run_single_threaded': True}
    if device.index:  # torch 2.7, which some Jetsons have, does not know the option
        options['device_index'] = device.index
    return options


class Program:
    """The step of a network, compiled for one size of frames."""

    def __init__(
        self, net: VideoNetwork, package: Callable[[Tensor, Tensor], Sequence[Tensor]]
    ) -> None:
        """Wrap what torch loaded.

        Args:
            net: network from which it was compiled.
            package: takes frames and state; returns what `StepModule` does.
        """
        self.device, self.dtype, self.initial_state = net.device, net.dtype, net.initial_state
        self._package = package

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each; see `VideoNetwork.step`."""
        # It reads memory in the order for which it was compiled, whatever the strides: those of an
        # initial state of several videos are zero.
        class_logits, mask_logits, embeddings, next_state = self._package(
            frames.contiguous(), state.contiguous()
        )
        return Outputs(class_logits, mask_logits, embeddings), next_state


def compile_program(net: VideoNetwork, size: Size, path: Path) -> None:
    """Compile the step of a network for one size into a file.

    Args:
        net: network on its device, in evaluation mode.
        size: size of the frames.
        path: the file, which appears when it is complete.
    """
    shape = (size.batch, 3, size.height, size.width)
    frames = torch.zeros(shape, dtype=net.dtype, device=net.device)
    state = net.initial_state(size.batch).clone()
    with torch.no_grad():
        with faster_program(net.device, net.dtype):
            exported = torch.export.export(StepModule(net), (frames, state))
        # In a folder, since inductor wants a name that ends in .pt2.
        with tempfile.TemporaryDirectory() as folder:
            package = torch._inductor.aoti_compile_and_package(
                exported, package_path=f'{folder}/step.pt2', inductor_configs=_options(net.device)
            )
            with whole_file(path) as file:
                file.write(Path(package).read_bytes())


def _options(device: torch.device) -> dict[str, Any]:
    """Return inductor's options: on a CPU weights are constants, laid out for oneDNN."""
    return {'freezing': True} if device.type == 'cpu' else {'max_autotune': True}


def _key(net: VideoNetwork, digest: str, size: Size) -> str:
    """Name the program of these weights, this code, this torch and this machine."""
    if net.device.type == 'cpu':
        features = ' '.join(sorted(cpu_features()))
        machine = f'{platform.machine()} {features} {torch.get_num_threads()}'
    else:
        machine = torch.cuda.get_device_name(net.device)
    code = code_digest(f'{net.dtype} {machine}')
    return f'{digest}-{size.batch}x{size.height}x{size.width}-{code}'


def _compile_apart(net: VideoNetwork, size: Size, path: Path) -> None:
    """Compile in another process.

    Raises:
        EngineError: it failed.
    """
    if not hasattr(torch._inductor, 'aoti_compile_and_package'):
        raise EngineError(
            f'The engine compiled needs torch 2.6 or later, this is {torch.__version__}. Install '
            'it, or choose the engine eager.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.weights-') as folder:
        weights = Path(folder) / 'net.safetensors'
        save_model(net, weights)
        command = [
            sys.executable, '-m', __name__, str(weights), str(path), *map(str, size),
            str(net.device), str(net.dtype).removeprefix('torch.'), str(torch.get_num_threads()),
        ]  # fmt: skip
        found = compiler_environment(Path(folder)) if net.device.type == 'cuda' else {}
        # The other process ends when its input does, so it does not outlive this one.
        done = subprocess.Popen(
            command,
            env=os.environ | found,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        assert done.stdout is not None and done.stdin is not None
        with done:
            text = done.stdout.read()
            done.stdin.close()
    if done.returncode or not path.is_file():
        lines = [line for line in text.splitlines() if line.strip()] or ['no message']
        raise EngineError(
            f'The network could not be compiled for frames of {size}: '
            f'{lines[-1].rstrip(".")}. Compiling needs a C++ compiler (apt install g++), and for '
            'a GPU the headers of CUDA (its toolkit). Or choose the engine eager.'
        )


def main() -> None:
    """Compile a network in a process of its own, see `_compile_apart`."""
    parser = argparse.ArgumentParser()
    for name in ('weights', 'path'):
        parser.add_argument(name, type=Path)
    for name in ('batch', 'height', 'width'):
        parser.add_argument(name, type=int)
    for name in ('device', 'dtype'):
        parser.add_argument(name)
    parser.add_argument('threads', type=int)
    args = parser.parse_args()
    threading.Thread(target=_end_with_input, daemon=True).start()
    torch.set_num_threads(args.threads)  # inductor shares loops out among so many
    net = load_model(str(args.weights)).to(args.device, getattr(torch, args.dtype))
    compile_program(net, Size(args.batch, args.height, args.width), args.path)


def _end_with_input() -> None:
    """End this process when the one that started it is gone."""
    sys.stdin.read()
    os._exit(1)


if __name__ == '__main__':
    main()
