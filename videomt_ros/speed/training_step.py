"""Time of a training step and of its parts.

The run's own module, clips and optimiser pass through Lightning's loop, as in training, with a
profiler that assigns every moment to one part. The device is synchronised at each change of
part, so that a part includes the work that it started. Without the overlap of host and device a
step on a GPU takes a little longer than in training.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch import Tensor

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.evaluation.launchers import check_training
from videomt_ros.model.network import Encoded
from videomt_ros.training.callbacks import RunningMean
from videomt_ros.training.data import Mixture, RunData, check_folders, check_shares
from videomt_ros.training.early_end import less_memory, memory_is_full
from videomt_ros.training.initial import configure_blocks, load_initial
from videomt_ros.training.machine import find_machine, precision_of, set_threads
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_settings import SYNTHETIC, Augmentation, DataSource, TrainSettings
from videomt_ros.training.trainer import build_trainer, quieten_lightning

REST = 'rest'
PARTS = ('data', 'forward', 'matching', 'losses', 'backward', 'optimiser', REST)
"""Parts of a step. data: waiting for the loader; matching: costs, their copy to the host and the
assignment; optimiser: with gradient clipping; rest: copies to the device, the running mean of the
weights, the loop."""

_ACTIONS = {'train_dataloader_next': 'data', 'optimizer_step': 'optimiser'}
"""Part of a step for the last word of the action names of Lightning's profiler."""
_STEP = 'run_training_batch'

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Number of steps in which torch.compile and cuDNN choose their kernels."""
AHEAD = 2
"""Number of batches that each worker prefetches (torch's default). The first ones are consumed
before the clock counts, or a loader that is too slow would look fast enough."""
CAMERA = (720, 1280)
"""Size (height, width) of the camera images that synthetic clips replace."""


class StepProfiler(Profiler):
    """Measures the seconds of each part between the ends of the last warm-up and the last step.

    A part within another one counts for itself alone, so that the parts add up to the whole.
    """

    def __init__(self, device: torch.device, warm_up: int, steps: int) -> None:
        """Measure `steps` steps after `warm_up` others."""
        super().__init__()
        self.samples_s = {part: [0.0] * steps for part in PARTS}
        """Seconds of each part in each measured step."""
        self._counted = range(warm_up, warm_up + steps)
        self._device = device
        self._step = 0
        self._open = [REST]
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Begin an action of Lightning."""
        if part := _part_of(action_name):
            self.enter(part)

    def stop(self, action_name: str) -> None:
        """End an action of Lightning."""
        if _part_of(action_name):
            self.leave()
        elif action_name == _STEP:
            self._charge()
            self._step += 1

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time counts for a part."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return run

    def enter(self, part: str) -> None:
        """Begin a part within the current one."""
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        """End the innermost part."""
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        """Add the time since the last change to the innermost part."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._step in self._counted:
            step = self._step - self._counted.start
            self.samples_s[self._open[-1]][step] += now - self._since
        self._since = now


def _part_of(action_name: str) -> str | None:
    """Return the part of an action such as '[_TrainingEpochLoop].train_dataloader_next'."""
    return _ACTIONS.get(action_name.rpartition('.')[2])


@dataclass(frozen=True)
class StepTimes:
    """Times of a training step, with the settings that they belong to."""

    samples_s: dict[str, list[float]]
    """Seconds of each part in each of the timed steps, in the order of PARTS."""
    peak_bytes: int
    """Peak memory in bytes: that of torch on a GPU, that of the process on a CPU."""
    sizes: list[tuple[int, int]]
    """Sizes (height, width) of the network's inputs in the timed steps."""
    precision: str
    """Precision of the run: fp32, bf16 or fp16."""
    device: torch.device
    settings: TrainSettings
    """Settings of the measured process: its phase and its share of the batch."""

    @property
    def total(self) -> float:
        """Mean seconds of a step."""
        return sum(mean(samples) for samples in self.samples_s.values())


def measure(settings: TrainSettings, steps: int, synthetic: bool = False) -> StepTimes:
    """Run some steps of a training run without keeping the weights.

    Args:
        settings: settings of the run; see `one_process` for the part of it that is measured.
        steps: number of timed steps after the warm-up, at least 1.
        synthetic: whether to train on synthetic clips; see `drawn`.

    Raises:
        ValueError: memory is too small for a step; says what to reduce.
        ValueError, DatasetError, CheckpointError: as training itself does.
    """
    quieten_lightning()
    warm_up = WARM_UP + AHEAD * settings.workers
    settings = one_process(settings, warm_up + steps)
    logger.info('%d steps to warm up, then %d that count.', warm_up, steps)
    if synthetic:
        settings = drawn(settings)
    check_training(settings.devices * settings.nodes)
    machine = find_machine(settings)
    set_threads(settings.threads)
    device = torch.device(machine.accelerator)
    check_folders(settings)
    net = load_initial(settings)
    configure_blocks(net, settings)
    mixture = Mixture(settings)
    module = TrainModule(settings, net)
    profiler = StepProfiler(device, warm_up, steps)
    sizes = set[tuple[int, int]]()

    encode = net.encode

    def noted(frames: Tensor) -> Encoded:
        height, width = frames.shape[-2:]
        sizes.add((height, width))
        return encode(frames)

    net.encode = noted  # type: ignore[method-assign]
    for owner, name, part in (
        (net, 'encode', 'forward'),
        (net, 'decode_clip', 'forward'),
        (module.criterion, 'chunk', 'losses'),
        (module.criterion, 'match', 'matching'),
        (module, 'manual_backward', 'backward'),
    ):
        setattr(owner, name, profiler.timed(part, getattr(owner, name)))
    trainer = build_trainer(
        settings,
        machine,
        callbacks=[RunningMean(settings.ema_decay)] if settings.ema_decay is not None else [],
        profiler=profiler,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    try:
        trainer.fit(module, datamodule=RunData(settings, mixture))
    except Exception as error:
        if not memory_is_full(error):
            raise
        raise ValueError(
            f'Out of memory with {settings.phases[0].batch_size} clips in {settings.accumulate} '
            f'parts. Change {less_memory(settings)}.'
        ) from error
    return StepTimes(
        profiler.samples_s,
        _peak_bytes(device),
        sorted(sizes),
        precision_of(trainer),
        device,
        settings,
    )


def one_process(settings: TrainSettings, steps: int) -> TrainSettings:
    """Return the settings of one process of a run, for `steps` steps of its last phase.

    Raises:
        ValueError: the batch cannot be shared among the processes; see `check_shares`.
    """
    phase, processes = settings.phases[-1], settings.devices * settings.nodes
    check_shares(settings, processes)
    share = replace(phase, steps=steps, batch_size=phase.batch_size // processes)
    return replace(settings, phases=(share,), devices=1, nodes=1, validation=None, wandb=None)


def drawn(settings: TrainSettings) -> TrainSettings:
    """Return the settings of the same run on synthetic clips and from random weights.

    No files are needed. The clips have the sizes that the run's augmentation gives to a camera's
    images, without crops.
    """
    if settings.data:
        names = settings.network.class_names
        shapes = [(shape, names[k % len(names)]) for k, shape in enumerate(CLASS_NAMES)]
        source = DataSource(SYNTHETIC, renamed=tuple(shapes))
        sizes = camera_sizes(settings.augmentation, settings.network.size_divisor)
        settings = replace(settings, data=(source,), image_sizes=sizes)
    return replace(settings, init_from=None)


def camera_sizes(augmentation: Augmentation, divisor: int) -> tuple[tuple[int, int], ...]:
    """Return the sizes (height, width) of padded camera frames, one for each short side."""
    sizes = []
    for short_side in augmentation.short_sides:
        scale = min(short_side / min(CAMERA), augmentation.max_long_side / max(CAMERA))
        height, width = (-(-round(side * scale) // divisor) * divisor for side in CAMERA)
        sizes.append((height, width))
    return tuple(sizes)


def _peak_bytes(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
