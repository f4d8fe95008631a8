"""The machine that a run uses: device, processes, threads and precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from videomt_ros.evaluation.launchers import has_slurm_place
from videomt_ros.model.device import has_fast_bf16
from videomt_ros.training.run_settings import TrainSettings

_MIXED: dict[str, Literal['bf16-mixed', '16-mixed']] = {'bf16': 'bf16-mixed', 'fp16': '16-mixed'}
"""Lightning's names of mixed precisions, in which the weights stay in float32."""


def usual_threads() -> int:
    """Return the CPU threads of a run that does not say: those the user set for torch, or 4."""
    return torch.get_num_threads() if os.environ.get('OMP_NUM_THREADS') else 4


USUAL_THREADS = usual_threads()
"""Result of `usual_threads` before `set_threads` changes the environment."""


@dataclass(frozen=True)
class Machine:
    """Device and processes of a run, as Lightning takes them."""

    accelerator: Literal['cpu', 'cuda']
    """Kind of device."""
    devices: int
    """Number of processes on each machine."""
    nodes: int
    """Number of machines."""

    @property
    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.nodes


def find_machine(settings: TrainSettings) -> Machine:
    """Find the device and the number of processes: of torchrun or SLURM, or of the settings.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    devices, nodes = settings.devices, settings.nodes
    if TorchElasticEnvironment.detect():
        devices = int(os.environ['LOCAL_WORLD_SIZE'])
        nodes = int(os.environ['WORLD_SIZE']) // devices
    elif SLURMEnvironment.detect():
        nodes = int(os.environ.get('SLURM_NNODES', 1))
        devices = int(os.environ['SLURM_NTASKS']) // nodes
    accelerator = settings.device
    if accelerator == 'auto':
        accelerator = 'cuda' if torch.cuda.is_available() else 'cpu'
    if accelerator == 'cuda' and torch.cuda.device_count() < devices:
        raise ValueError(
            f'Expected {devices} GPUs that work here, got {torch.cuda.device_count()}. '
            'Set devices to their number, or device=cpu.'
        )
    return Machine('cuda' if accelerator == 'cuda' else 'cpu', devices, nodes)


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of torch in this process and in those it starts.

    Args:
        threads: see `TrainSettings`.
    """
    threads = threads or USUAL_THREADS
    torch.set_num_threads(threads)
    # Otherwise Lightning sets another number when it launches several processes.
    os.environ['OMP_NUM_THREADS'] = str(threads)


def cluster_plugins() -> list[ClusterEnvironment]:
    """Return a plugin that keeps Lightning from requeueing SLURM jobs.

    Lightning would repeat the same command, which refuses the folder of the run it has begun. A
    batch script for `sbatch --requeue` calls `videomt train --resume`, which starts a run as well.

    A shell of an allocation has some of SLURM's variables but no place among the processes of a
    job; there the run starts its processes itself, as outside SLURM.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False) if has_slurm_place() else LightningEnvironment()]


def is_first_process() -> bool:
    """Whether this process logs for all processes; may be called before the run begins."""
    return getattr(rank_zero_only, 'rank', 0) == 0


def precision_plugin(
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'], accelerator: str
) -> Precision:
    """Return Lightning's plugin for a precision; see `TrainSettings` for auto."""
    if precision == 'auto':
        precision = 'bf16' if accelerator == 'cuda' or has_fast_bf16() else 'fp32'
    if precision == 'fp32':
        return Precision()
    return MixedPrecision(_MIXED[precision], accelerator)


def precision_of(trainer: Trainer) -> str:
    """Return the precision of a trainer as settings name it: fp32, bf16 or fp16."""
    names: dict[str, str] = {theirs: ours for ours, theirs in _MIXED.items()}
    return names.get(str(trainer.precision), 'fp32')
