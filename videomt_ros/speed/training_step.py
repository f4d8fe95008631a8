"""Where the time of a training step goes.

The run's own module, clips and optimiser pass through Lightning's loop, as in training, with a
profiler that charges every moment to one part. The device is synchronised at each change of
part, so that a part holds the work that it started; what the device would have done beside the
host's next part is waited for, which makes a step on a GPU a little longer than in training.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch import Tensor

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.training.callbacks import RunningMean
from videomt_ros.training.data import Mixture, RunData, check_folders, check_shares
from videomt_ros.training.early_end import less_memory, memory_is_full
from videomt_ros.training.initial import load_initial, prepare
from videomt_ros.training.machine import find_machine, precision_of, set_threads
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_settings import SYNTHETIC, Augmentation, DataSource, TrainSettings
from videomt_ros.training.trainer import build_trainer, quieten_lightning

REST = 'rest'
PARTS = ('data', 'forward', 'matching', 'losses', 'backward', 'optimiser', REST)
"""data: waiting for the loader; matching: costs, their way to the host and the assignment;
optimiser: with the clipping of gradients; rest: copies to the device, the mean of the weights, the
loop."""

_ACTIONS = {'train_dataloader_next': 'data', 'optimizer_step': 'optimiser'}
"""Ends of the names that Lightning gives to what it does, and the parts they are."""
_STEP = 'run_training_batch'

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Steps in which torch.compile and cuDNN choose their kernels."""
AHEAD = 2
"""Batches that each worker has ready (torch's default). Those of the start are used up before the
clock counts, or a loader that is too slow would look fast enough."""
CAMERA = (720, 1280)
"""(height, width) of the images that drawn clips stand in for."""


class StepProfiler(Profiler):
    """Seconds of each part, from the end of the last warm-up step to the end of the last step.

    A part within another one counts for itself alone, so that the parts make up the whole.
    """

    def __init__(self, device: torch.device, warm_up: int, steps: int) -> None:
        """Count `steps` steps after `warm_up` others."""
        super().__init__()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._counted = range(warm_up, warm_up + steps)
        self._device = device
        self._step = 0
        self._open = [REST]
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Lightning begins an action."""
        if part := _part_of(action_name):
            self.enter(part)

    def stop(self, action_name: str) -> None:
        """Lightning ends an action."""
        if _part_of(action_name):
            self.leave()
        elif action_name == _STEP:
            self._charge()
            self._step += 1

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, charged to a part."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return run

    def enter(self, part: str) -> None:
        """A part begins, within the one that is going on."""
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        """The innermost part ends."""
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        """What passed since the last change belongs to the innermost part."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._step in self._counted:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def _part_of(action_name: str) -> str | None:
    """The part that an action such as '[_TrainingEpochLoop].train_dataloader_next' is."""
    return _ACTIONS.get(action_name.rpartition('.')[2])


@dataclass(frozen=True)
class StepTimes:
    """What was measured, and of what."""

    seconds: dict[str, float]
    """Of a step, by part, in the order of PARTS: the mean of all timed steps."""
    peak_bytes: int
    """On a GPU the most that torch held at a time; on a CPU the most of the process's memory."""
    sizes: list[tuple[int, int]]
    """(height, width) of the network's inputs in the timed steps."""
    precision: str
    """fp32, bf16 or fp16."""
    device: torch.device
    settings: TrainSettings
    """Of the process that was measured: its phase, and its share of the batch."""

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())


def measure(settings: TrainSettings, steps: int, synthetic: bool = False) -> StepTimes:
    """Run some steps of a training run, and keep nothing of what they learn.

    Args:
        settings: of the run; see `one_process` for the part of it that is measured.
        steps: timed, after the warm-up; at least 1.
        synthetic: see `drawn`.

    Raises:
        ValueError: memory is too small for a step; says what to lower.
        ValueError, DatasetError, CheckpointError: as training itself does.
    """
    quieten_lightning()
    warm_up = WARM_UP + AHEAD * settings.workers
    settings = one_process(settings, warm_up + steps)
    logger.info('%d steps to warm up, then %d that count.', warm_up, steps)
    if synthetic:
        settings = drawn(settings)
    machine = find_machine(settings)
    set_threads(settings.threads)
    device = torch.device(machine.accelerator)
    check_folders(settings)
    net = load_initial(settings)
    prepare(net, settings)
    mixture = Mixture(settings)
    module = TrainModule(settings, net)
    profiler = StepProfiler(device, warm_up, steps)
    sizes = set[tuple[int, int]]()

    def begin(_: Any, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[-2:]
        sizes.add((height, width))
        profiler.enter('forward')

    net.register_forward_pre_hook(begin)
    net.register_forward_hook(lambda *_: profiler.leave())
    for owner, name, part in (
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
        {part: seconds / steps for part, seconds in profiler.seconds.items()},
        _peak_bytes(device),
        sorted(sizes),
        precision_of(trainer),
        device,
        settings,
    )


def one_process(settings: TrainSettings, steps: int) -> TrainSettings:
    """The run of one process of several, with its share of each batch: `steps` of its last phase.

    Raises:
        ValueError: see `check_shares`.
    """
    phase, processes = settings.phases[-1], settings.devices * settings.nodes
    check_shares(settings, processes)
    share = replace(phase, steps=steps, batch_size=phase.batch_size // processes)
    return replace(settings, phases=(share,), devices=1, nodes=1, validation=None, wandb=None)


def drawn(settings: TrainSettings) -> TrainSettings:
    """The same run on drawn clips and from random weights: no files are needed.

    The clips have the sizes that the run's augmentation gives to a camera's images, without crops.
    """
    if settings.data:
        names = settings.network.class_names
        shapes = [(shape, names[k % len(names)]) for k, shape in enumerate(CLASS_NAMES)]
        source = DataSource(SYNTHETIC, renamed=tuple(shapes))
        sizes = camera_sizes(settings.augmentation, settings.network.size_divisor)
        settings = replace(settings, data=(source,), image_sizes=sizes)
    return replace(settings, init_from=None)


def camera_sizes(augmentation: Augmentation, divisor: int) -> tuple[tuple[int, int], ...]:
    """(height, width) of padded frames of a camera, one for each short side."""
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
