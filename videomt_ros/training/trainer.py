"""Trains a network: puts data, network and callbacks into Lightning's loop.

A run leaves in its folder:

- `model.safetensors`: the weights at the end, or their mean if the run keeps one;
- `best.safetensors`: the weights of the best score, with score and step in its metadata;
- `checkpoints/step=N.ckpt`: the latest checkpoints and that of the best score, to resume from;
- `log.jsonl` and `tensorboard/`: losses and scores;
- `validation/`: the reports of the latest and of the best validation;
- `pictures/`: predictions beside the truth, of each validation.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy

from videomt_ros.evaluation.launchers import check_training
from videomt_ros.files import remove_partials
from videomt_ros.model import build_network, save_model
from videomt_ros.progress import is_terminal
from videomt_ros.training.callbacks import RunLog, RunningMean, StepBar
from videomt_ros.training.checkpoints import (
    FOLDER,
    AtomicIO,
    KeepCheckpoints,
    find_checkpoints,
    newest_checkpoint,
)
from videomt_ros.training.data import Mixture, RunData, check_folders, check_shares
from videomt_ros.training.data_fit import changes_since, misfits
from videomt_ros.training.early_end import explain_early_end
from videomt_ros.training.initial import configure_blocks, load_initial
from videomt_ros.training.machine import (
    Machine,
    cluster_plugins,
    find_machine,
    is_first_process,
    precision_plugin,
    set_threads,
)
from videomt_ros.training.module import TrainModule
from videomt_ros.training.optimiser import group_table
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.validation import ScoreCallback

logger = logging.getLogger(__name__)


def train(settings: TrainSettings, resume: bool = False) -> Path:
    """Train a network as the settings say, and write its weights.

    Under a launcher such as torchrun, every process calls this. Without one, the first process
    calls it, and Lightning starts the others.

    Args:
        settings: settings of the run.
        resume: go on from the latest undamaged checkpoint in `settings.out`, if there is one.

    Returns:
        Path of the file with the weights, which `load_model` reads.

    Raises:
        ValueError: the folder holds a run already, a setting does not work on this machine, the
            environment asks for processes that nobody started, or the checkpoints to resume from
            are damaged or have other settings.
        EndedEarly: the loss is not finite, or memory or disk are full; says how to go on.
        DatasetError: the data cannot be used; names file and record.
    """
    out = Path(settings.out)
    folder = out / FOLDER
    if not resume and (saved := find_checkpoints(folder)):
        raise ValueError(
            f'Expected a folder without a run, {out} holds {next(iter(saved.values())).name}. '
            'Go on with that run by --resume, or choose another folder with out=...'
        )
    check_training(settings.devices * settings.nodes)
    quieten_lightning()
    machine = find_machine(settings)
    set_threads(settings.threads)
    # All other checks come before reading the data, which may take hours.
    check_shares(settings, machine.world_size)
    warmups = settings.warmup_steps + (settings.vit_warmup_steps or 0)
    if warmups >= settings.total_steps and is_first_process():
        logger.warning(
            'The learning rate rises for %d steps of %d: the run ends before it has learnt at '
            'its full rate. Lower warmup_steps and vit_warmup_steps, or give phases more steps.',
            warmups,
            settings.total_steps,
        )
    if settings.precision == 'fp16' and machine.accelerator == 'cpu' and is_first_process():
        logger.warning(
            'precision=fp16 is made for GPUs: most CPUs take longer for a step with it than in '
            'fp32, and small gradients are lost. precision=auto takes what is faster on this one.'
        )
    if settings.max_minutes is not None and machine.world_size > 1:
        raise ValueError(
            f'Expected max_minutes=null for {machine.world_size} processes, whose clocks differ, '
            f'got {settings.max_minutes:g}. Leave it out, or train in one process.'
        )
    make_folder(out)
    check_folders(settings)
    build_loggers(settings)  # raises if a package is missing
    module, checkpoint = None, None
    if resume:
        # Weights come from the checkpoint, since the initial ones may be gone by now.
        module = TrainModule(settings, build_network(settings.network))
        checkpoint = newest_checkpoint(folder, settings, module.state_dict())
        if checkpoint is None:
            logger.info('%s holds no checkpoint: starting from step 0.', out)
        else:
            logger.info('Going on from %s.', checkpoint)
    if module is None or checkpoint is None:
        module = TrainModule(settings, load_initial(settings))
    configure_blocks(module.net, settings)
    scores = ScoreCallback(settings) if settings.validation is not None else None
    mixture = Mixture(settings)
    remarks = [*misfits(settings, mixture)]
    if checkpoint is not None:
        remarks += changes_since(checkpoint, mixture)
    trainer = build_trainer(settings, machine, scores)
    if is_first_process():
        for remark in remarks:
            logger.warning('%s', remark)
        logger.info('Parameter groups:\n%s', group_table(module.parameter_groups()))
        frozen = [each.numel() for each in module.parameters() if not each.requires_grad]
        if frozen:
            logger.info('Frozen: %s parameters.', f'{sum(frozen):,}')
        remove_partials(out)
    path = out / 'model.safetensors'
    with explain_early_end(settings, trainer):
        trainer.ckpt_path = checkpoint  # an attribute, so that callbacks can read it
        trainer.fit(module, datamodule=RunData(settings, mixture))
        if trainer.is_global_zero:
            net = build_network(settings.network)
            net.load_state_dict(module.deliverable())
            save_model(net, path, dtype=torch.float16)
    return path


def make_folder(out: Path) -> None:
    """Create the folder of a run, and check that files can be written there.

    Raises:
        ValueError: no files can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(
            f'Expected a folder to write the run to, out={out} is none: {error.strerror}. '
            'Choose another with out=...'
        ) from error


def quieten_lightning() -> None:
    """Suppress Lightning's notes on hardware and services, which would bury those of the run."""
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message=r'.*isinstance\(treespec, LeafSpec\)')
    warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')
    warnings.filterwarnings('ignore', message=r'Found \d+ module\(s\) in eval mode')  # frozen


def build_trainer(
    settings: TrainSettings,
    machine: Machine,
    scores: ScoreCallback | None = None,
    **changes: Any,
) -> pl.Trainer:
    """Build Lightning's trainer with the callbacks, plugins and loggers of a run.

    Args:
        settings: settings of the run.
        machine: device and processes.
        scores: validation of the run; None: the run is not scored.
        changes: arguments of Lightning's Trainer that replace those of a run.
    """
    out = Path(settings.out)
    # Lightning draws the bar on stdout, and the log goes to stderr.
    shows_bar = is_terminal(sys.stdout, sys.stderr)
    callbacks: list[pl.Callback] = []
    if settings.ema_decay is not None:
        callbacks.append(RunningMean(settings.ema_decay))  # first, since the mean is scored
    callbacks.append(RunLog(out / 'log.jsonl', settings.log_every, in_words=not shows_bar))
    if scores is not None:
        callbacks.append(scores)
    callbacks.append(
        KeepCheckpoints(
            out / FOLDER,
            settings.checkpoint_every,
            settings.keep_checkpoints,
            best_step=lambda: scores.best_step if scores is not None else None,
        )
    )
    if shows_bar:
        callbacks.append(StepBar())
    arguments: dict[str, Any] = {
        'accelerator': machine.accelerator,
        'devices': machine.devices,
        'num_nodes': machine.nodes,
        'strategy': 'auto',
        'plugins': [
            AtomicIO(),
            precision_plugin(settings.precision, machine.accelerator),
            *cluster_plugins(),
        ],
        'max_steps': settings.total_steps,
        'max_epochs': 1,
        'log_every_n_steps': min(settings.log_every, settings.total_steps),
        'callbacks': callbacks,
        'logger': build_loggers(settings),
        'default_root_dir': out,
        'enable_progress_bar': shows_bar,
        'enable_model_summary': False,
        'use_distributed_sampler': False,
        'limit_val_batches': 0,
    }
    if machine.world_size > 1:
        # Phases of one frame do not use the query updater.
        arguments['strategy'] = DDPStrategy(find_unused_parameters=True)
    return pl.Trainer(**(arguments | changes))


def build_loggers(settings: TrainSettings) -> list[Logger]:
    """Build the loggers: TensorBoard, and Weights & Biases if a project is named.

    Raises:
        ValueError: the package of Weights & Biases is not installed.
    """
    loggers: list[Logger] = [
        TensorBoardLogger(settings.out, name='tensorboard', version='', default_hp_metric=False)
    ]
    if settings.wandb is not None:
        try:
            loggers.append(
                WandbLogger(project=settings.wandb, save_dir=settings.out, log_model=False)
            )
        except ModuleNotFoundError as error:
            raise ValueError(
                f'Expected the package wandb for wandb={settings.wandb}, it is not installed. '
                'Install it with pip install wandb, or leave the setting out: TensorBoard has '
                'the same figures.'
            ) from error
    return loggers
