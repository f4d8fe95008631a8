"""Tiny runs, and access to the files they leave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from videomt_ros.training.data import Mixture, RunData
from videomt_ros.training.initial import load_initial
from videomt_ros.training.machine import find_machine, set_threads
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import build_trainer

TINY_SIZES = {
    'embed_dim': 32, 'depth': 3, 'num_heads': 2, 'patch_size': 8, 'table_size': 32,
    'num_queries': 8, 'num_query_blocks': 2, 'test_size': 32, 'size_divisor': 8,
}  # fmt: skip
"""Sizes of a network whose steps take milliseconds."""


def tiny_network(num_classes: int, **changes: Any) -> str:
    """Return the `network` of a run file with these sizes and some changes."""
    values = {'name': 'tiny', 'num_classes': num_classes, **TINY_SIZES, **changes}
    return f'network: {json.dumps(values)}'


TINY = (
    tiny_network(6)
    + """
seed: 1
phases:
  - {steps: 3, clip_frames: 1, batch_size: 2}
  - {steps: 3, clip_frames: 2, batch_size: 2}
image_sizes: [[32, 40], [32, 32]]
warmup_steps: 2
layer_decay: 1
vit_warmup_steps: null
ema_decay: 0.999
masked_attention_until: 0.6
losses: {num_points: 64}
device: cpu
precision: fp32
workers: 0
threads: 1
log_every: 1
checkpoint_every: 2
"""
)


def tiny_settings(out: Path, *overrides: str) -> TrainSettings:
    """Return the settings of a run of 6 steps in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix('.yaml')
    own = out.with_suffix(f'.{os.getpid()}')
    own.write_text(TINY)
    own.replace(path)  # in one piece, since another process of the run may read it
    return load_settings(path, [f'out={out}', *overrides])


class Watch(pl.Callback):
    """Calls a function after each step, with the module."""

    def __init__(self, look: Callable[[TrainModule], None]) -> None:
        self.look = look

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.look(pl_module)


def run(
    settings: TrainSettings,
    look: Callable[[TrainModule], None] | None = None,
    prepare: Callable[[TrainModule], None] | None = None,
    **changes: Any,
) -> TrainModule:
    """Run the training loop from its first step in this process; see `build_trainer`.

    Args:
        settings: settings of the run.
        look: called with the module after each step.
        prepare: called with the module before the first step.
        changes: see `build_trainer`.
    """
    set_threads(settings.threads)
    module = TrainModule(settings, load_initial(settings))
    if prepare:
        prepare(module)
    trainer = build_trainer(settings, find_machine(settings), **changes)
    if look:
        trainer.callbacks.append(Watch(look))
    trainer.fit(module, datamodule=RunData(settings, Mixture(settings)))
    return module


def at_step(
    monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[TrainModule, Any], None]
) -> None:
    """Call a function in a run before its step of this number."""
    original = TrainModule.training_step

    def watched(self, batch, batch_idx):
        if self.global_step == step:
            act(self, batch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainModule, 'training_step', watched)


def checkpoint_of(settings: TrainSettings, step: int) -> dict[str, Any]:
    """Read the checkpoint of a step."""
    path = Path(settings.out) / 'checkpoints' / f'step={step}.ckpt'
    return torch.load(path, weights_only=True)


def log_lines(settings: TrainSettings) -> list[dict[str, Any]]:
    """Read the log without its timings."""
    text = (Path(settings.out) / 'log.jsonl').read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k != 'seconds_per_step'} for line in lines]


def differences(ours: Any, theirs: Any, where: str = '') -> list[str]:
    """List the places at which two nested values with tensors are not equal bit by bit."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [f'{where}.{key}' for key in ours.keys() ^ theirs.keys()]
        for key in ours.keys() & theirs.keys():
            found += differences(ours[key], theirs[key], f'{where}.{key}')
        return found
    if isinstance(ours, (list, tuple)) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [name for i, (a, b) in pairs for name in differences(a, b, f'{where}.{i}')]
    if isinstance(ours, torch.Tensor):
        same = torch.equal(ours, theirs)
    else:
        same = ours == theirs
    return [] if same else [where]
