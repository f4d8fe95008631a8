"""Several processes, and parts of a batch, learn what one process does with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from tests.training.runs import checkpoint_of, log_lines, run, tiny_settings
from videomt_ros.training.machine import find_machine
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import train

# In the last chunk, of one frame, neither the queries nor the updater have a part: their gradients
# are of earlier backward passes alone, and must be averaged all the same.
RUN = (
    'phases=[{steps: 2, clip_frames: 1, batch_size: 4},'
    ' {steps: 2, clip_frames: 2, batch_size: 4},'
    ' {steps: 2, clip_frames: 5, batch_size: 4, chunk_frames: 2}]',
    'network.propagation=gru', 'learning_rate=0.003', 'warmup_steps=1', 'masked_attention_until=1',
    'grad_clip_norm=1000',  # AdamW and clipping would hide a factor
    'checkpoint_every=6',
)  # fmt: skip
TORCHRUN = [
    sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
    '-m', 'videomt_ros',
]  # fmt: skip


FROZEN = (
    *RUN, 'network.architecture=pmt', 'network.depth=4', 'network.num_query_blocks=2',
    'masked_attention_until=0',
)  # fmt: skip
"""The same with a frozen encoder, and batch norms that need the statistics of all processes."""


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """Train in one process."""
    settings = tiny_settings(tmp_path_factory.mktemp('alone') / 'out', *RUN)
    train(settings)
    return settings


def assert_alike(settings, alone) -> None:
    """Compare loss curve, weights, their mean and the moments of AdamW."""
    ours, theirs = log_lines(settings), log_lines(alone)
    assert [line['step'] for line in ours] == [1, 2, 3, 4, 5, 6]
    for line, expected in zip(ours, theirs, strict=True):
        assert line == pytest.approx(expected, rel=1e-5)
    a, b = checkpoint_of(settings, 6), checkpoint_of(alone, 6)
    for part in ('state_dict', 'current_model_state'):
        for name, value in b[part].items():
            found = a[part][name]
            if name.endswith('qkv.bias'):
                # The gradient of keys' biases is 0 but for rounding: softmax does not see them.
                # AdamW makes whole steps of what is left of it.
                found, value = (torch.cat(each.chunk(3)[::2]) for each in (found, value))
            torch.testing.assert_close(found, value, rtol=1e-5, atol=2e-6)
    for key, moments in b['optimizer_states'][0]['state'].items():
        scale = moments['exp_avg'].abs().max().item()
        found = a['optimizer_states'][0]['state'][key]['exp_avg']
        torch.testing.assert_close(found, moments['exp_avg'], rtol=1e-4, atol=1e-5 * scale)


def test_parts_of_a_batch_learn_what_the_whole_does(tmp_path, alone):
    settings = tiny_settings(tmp_path / 'out', *RUN, 'accumulate=2')
    train(settings)
    assert_alike(settings, alone)


def test_two_processes_learn_what_one_does(tmp_path, alone):
    """Most of the time goes into starting them."""
    assert_alike(train_in_two_processes(tmp_path, *RUN, 'accumulate=2'), alone)


def test_two_processes_learn_what_one_does_from_a_frozen_encoder(tmp_path):
    alone = tiny_settings(tmp_path / 'alone', *FROZEN)
    train(alone)
    assert_alike(train_in_two_processes(tmp_path, *FROZEN, 'accumulate=2'), alone)


def train_in_two_processes(tmp_path: Path, *overrides: str) -> TrainSettings:
    """Train with torchrun, and return the settings."""
    settings = tiny_settings(tmp_path / 'out', *overrides)
    result = subprocess.run(
        [*TORCHRUN, 'train', '--config', f'{tmp_path / "out"}.yaml', f'out={settings.out}',
         *overrides],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(Path(settings.out) / 'model.safetensors')]
    assert result.stderr.count('step 6 of 6, loss') == 1  # one speaks for both
    return settings


def test_gradients_are_exchanged_once_a_step(tmp_path, monkeypatch):
    """They are, after the last of six backward passes: two parts of three chunks each."""
    # Lightning's launcher leaves them set, and later tests' runs would wait for other processes.
    for name in ('MASTER_ADDR', 'NODE_RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, 'noted, to be taken back')
        monkeypatch.delenv(name)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        monkeypatch.setenv('MASTER_PORT', str(probe.getsockname()[1]))
    counts = []

    def count(_, bucket):
        counts[-1] += bucket.index() == 0
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    class Hook(pl.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            trainer.strategy.model.register_comm_hook(None, count)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            counts.append(0)

    settings = tiny_settings(
        tmp_path / 'out', 'network.propagation=gru', 'accumulate=2', 'ema_decay=null',
        'phases=[{steps: 3, clip_frames: 5, batch_size: 4, chunk_frames: 2}]',
    )  # fmt: skip
    strategy = DDPStrategy(find_unused_parameters=True)
    try:
        run(settings, strategy=strategy, callbacks=[Hook()], enable_checkpointing=False)
    finally:
        torch.distributed.destroy_process_group()
    assert counts == [1, 1, 1]


def test_a_launcher_says_how_many_processes_there_are(tmp_path, monkeypatch):
    settings = tiny_settings(tmp_path / 'out', 'devices=7')
    assert find_machine(settings).world_size == 7
    with monkeypatch.context() as patch:
        for name, value in (
            ('TORCHELASTIC_RUN_ID', 'x'), ('LOCAL_WORLD_SIZE', '4'), ('WORLD_SIZE', '8')
        ):  # fmt: skip
            patch.setenv(name, value)
        machine = find_machine(settings)
        assert (machine.devices, machine.nodes, machine.world_size) == (4, 2, 8)
    for name, value in (
        ('SLURM_NTASKS', '6'), ('SLURM_NNODES', '2'), ('SLURM_JOB_NAME', 'train'),
        ('SLURM_NTASKS_PER_NODE', '3'),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    machine = find_machine(settings)
    assert (machine.devices, machine.nodes) == (3, 2)


def start(out: Path, **env: str) -> subprocess.Popen[str]:
    """Start `videomt train` with variables of a launcher."""
    settings = tiny_settings(out)
    return subprocess.Popen(
        [sys.executable, '-m', 'videomt_ros', 'train', '--config', f'{out}.yaml',
         f'out={settings.out}'],
        env={**os.environ, 'SLURM_JOB_ID': '4242', 'SLURM_JOB_NAME': 'train', **env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end of a process, which is killed if it waits for others."""
    try:
        return process.communicate(timeout=200)
    finally:
        process.kill()


@pytest.mark.parametrize('more', [{}, {'SLURM_NTASKS_PER_NODE': '2', 'SLURM_PROCID': '0'}])
def test_tasks_that_nobody_started_are_not_waited_for(tmp_path, more):
    process = start(tmp_path / 'out', SLURM_NTASKS='2', **more)
    _, err = ended(process)
    assert process.returncode == 1
    [line] = err.splitlines()
    assert 'SLURM_NTASKS=2 asks for 2 processes that nobody started' in line


def test_a_shell_of_an_allocation_trains_alone(tmp_path):
    process = start(tmp_path / 'out', SLURM_NTASKS='1')
    _, err = ended(process)
    assert process.returncode == 0, err


def test_tasks_of_srun_train_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    job = {
        'SLURM_NTASKS': '2', 'SLURM_NTASKS_PER_NODE': '2', 'SLURM_NNODES': '1',
        'SLURM_NODEID': '0', 'SLURM_STEP_ID': '0', 'SLURM_STEP_NUM_TASKS': '2',
        'MASTER_PORT': port,
    }  # fmt: skip
    tasks = [
        start(tmp_path / 'out', **job, SLURM_PROCID=place, SLURM_LOCALID=place)
        for place in ('0', '1')
    ]
    outputs = [ended(task) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert [out.splitlines() for out, _ in outputs] == [
        [str(tmp_path / 'out/model.safetensors')], [],
    ]  # fmt: skip
