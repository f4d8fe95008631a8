"""The training loop: phases of clips, checkpoints that a run resumes from, averaged weights."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from videomt_ros.model import VidEoMT, save_model
from videomt_ros.model.network import Outputs
from videomt_ros.training.chunks import chunk_losses
from videomt_ros.training.clips import Batch
from videomt_ros.training.criterion import Criterion
from videomt_ros.training.mixture import Mixture
from videomt_ros.training.optimiser import group_table, parameter_groups, set_learning_rates
from videomt_ros.training.sampling import load_batches
from videomt_ros.training.schedule import learning_rate_factors, masked_attention_probability
from videomt_ros.training.settings import TrainSettings

logger = logging.getLogger(__name__)

UPDATER_GAIN = 0.3
"""Share of a query that a network from scratch hands on to the next frame."""


class Trainer:
    """Train a network from scratch and leave its (averaged) weights in `settings.out`.

    A run that is interrupted goes on from its last checkpoint with `run(resume=True)`.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.out = Path(settings.out)
        self.device = open_device(settings.device)
        torch.set_num_threads(settings.threads)
        self.mixture = Mixture(settings)
        torch.manual_seed(settings.seed)
        self.net = VidEoMT(settings.network)
        start_from_scratch(self.net)
        self.net.to(self.device).train()
        self.average: dict[str, Tensor] = {}  # stays empty without ema_decay
        if settings.ema_decay is not None:
            self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.criterion = Criterion(settings.losses)
        groups = parameter_groups(
            self.net, settings.weight_decay, settings.layer_decay, settings.decay_all
        )
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.step = 0

    def run(self, resume: bool = False) -> Path:
        """Train to the last step.

        Returns:
            The file with the (averaged) weights, one that `load_model` reads.

        Raises:
            ValueError: the loss is not finite; the folder holds a run already; or, on a resume,
                its checkpoint is damaged or of another run.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            self.load_checkpoint()
        elif self.checkpoint_path.exists():
            raise ValueError(
                f'Expected a folder without a run, {self.out} holds {self.checkpoint_path.name}. '
                'Go on with that run by --resume, or choose another folder with out=...'
            )
        self.cut_log()
        logger.info('Parameter groups:\n%s', group_table(self.optimizer.param_groups))
        started, first_step = time.monotonic(), self.step
        with open(self.log_path, 'a', encoding='utf-8') as log:
            for batch in self.batches():
                record = self.train_step(batch)
                self.step += 1
                if self.step % self.settings.log_every == 0:
                    pace = (time.monotonic() - started) / (self.step - first_step)
                    record |= {'step': self.step, 'seconds_per_step': round(pace, 3)}
                    log.write(json.dumps(record) + '\n')
                    log.flush()
                    left = pace * (self.settings.total_steps - self.step)
                    logger.info(
                        'step %d of %d, loss %.2f (class %.2f, mask %.2f, dice %.2f), '
                        '%.2f s a step, %d min left',
                        self.step, self.settings.total_steps, record['loss'], record['class'],
                        record['mask'], record['dice'], pace, left / 60,
                    )  # fmt: skip
                if self.step % self.settings.checkpoint_every == 0:
                    self.save_checkpoint()
        self.save_checkpoint()
        return self.save_average()

    def batches(self) -> Iterator[Batch]:
        """The batches from the present step to the last, whatever came before a resume."""
        settings, done = self.settings, 0
        for index, phase in enumerate(settings.phases):
            rest = range(max(0, self.step - done), phase.steps)
            done += phase.steps
            clips = self.mixture.clips(index)
            on_gpu = self.device.type == 'cuda'
            yield from load_batches(clips, rest, settings.workers, pin_memory=on_gpu)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        settings = self.settings
        # Points and masked queries are drawn anew for each step from its own seed, so that a
        # resumed run draws what an unbroken one would.
        torch.manual_seed((settings.seed << 32) + self.step)
        factors = learning_rate_factors(
            self.step,
            settings.warmup_steps,
            settings.vit_warmup_steps,
            settings.total_steps,
            settings.decay_power,
        )
        set_learning_rates(self.optimizer, settings.learning_rate, factors)
        probability = masked_attention_probability(
            self.step, settings.total_steps, settings.masked_attention_until
        )
        masked = [probability] * settings.network.num_query_blocks if probability else None
        targets = batch.targets.to(self.device)

        def forward(frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
            on_gpu = self.device.type == 'cuda'
            with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu):
                return self.net(self.normalise(frames.to(self.device)), masked, state)

        batch_size, num_frames = batch.frames.shape[:2]
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for losses in chunk_losses(
            forward,
            self.net.cut_gradient,
            self.criterion,
            self.net.initial_state(batch_size),
            batch.frames,
            targets,
            settings.phase_at(self.step).chunk_frames or num_frames,
        ):
            loss = torch.stack(list(losses.values())).sum()
            loss.backward()
            parts.append({name: value.detach() for name, value in losses.items()})
        sums = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        loss = torch.stack(list(sums.values())).sum()
        record = dict(
            zip(['loss', *sums], torch.stack([loss, *sums.values()]).tolist(), strict=True)
        )
        if not math.isfinite(record['loss']):
            raise ValueError(
                f'The loss is not finite at step {self.step}: {record}. Start another run with '
                'a lower learning_rate, in another folder with out=...'
            )
        nn.utils.clip_grad_norm_(self.net.parameters(), settings.grad_clip_norm)
        self.optimizer.step()
        self.update_average()
        return record

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, T, 3, H, W) as the network expects them."""
        config = self.settings.network
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (config.pixel_mean, config.pixel_std)
        )
        return (frames.float() - mean) / std

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights, if there are any, towards the present ones."""
        if self.settings.ema_decay is None:
            return
        # A young average follows closely, or it would hold on to the random start.
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save_average(self) -> Path:
        """Write the averaged weights, or else the present ones, as half precision."""
        net = VidEoMT(self.settings.network)
        net.load_state_dict(self.average or self.net.state_dict())
        path = self.out / 'model.safetensors'
        save_model(net, path, dtype=torch.float16)
        return path

    @property
    def checkpoint_path(self) -> Path:
        """Where the run can be resumed from."""
        return self.out / 'checkpoint.pt'

    @property
    def log_path(self) -> Path:
        """The losses, one JSON object a line."""
        return self.out / 'log.jsonl'

    def cut_log(self) -> None:
        """Leave out of the log what lies beyond the present step: it is about to come again."""
        if not self.log_path.exists():
            return
        kept = []
        for line in self.log_path.read_text(encoding='utf-8').splitlines(keepends=True):
            try:
                if json.loads(line)['step'] <= self.step:
                    kept.append(line)
            except ValueError:  # a crash may cut a line in half
                continue
        partial = self.log_path.with_suffix('.partial')
        partial.write_text(''.join(kept), encoding='utf-8')
        os.replace(partial, self.log_path)

    def save_checkpoint(self) -> None:
        """Write everything a resume needs; a crash while writing leaves the last one whole."""
        content = {
            'step': self.step,
            'settings': self.settings.deciding(),
            'weights': self.net.state_dict(),
            'average': self.average,
            'optimizer': self.optimizer.state_dict(),
        }
        partial = self.checkpoint_path.with_suffix('.partial')
        torch.save(content, partial)
        os.replace(partial, self.checkpoint_path)

    def load_checkpoint(self) -> None:
        """Go on from the last checkpoint, if there is one.

        Raises:
            ValueError: it is damaged, or of a run with other settings; names them.
        """
        path = self.checkpoint_path
        if not path.exists():
            logger.info('%s holds no checkpoint: starting from step 0.', self.out)
            return
        try:
            content: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
            step, saved = content['step'], dict(content['settings'])
            weights, average = content['weights'], content['average']
            optimizer = content['optimizer']
        except OSError:
            raise
        except Exception as error:  # a damaged file can fail in any way inside the reader
            raise ValueError(_damaged(path)) from error
        ours = self.settings.deciding()
        differing = sorted(
            name for name in ours.keys() | saved.keys() if ours.get(name) != saved.get(name)
        )
        if differing:
            raise ValueError(
                f'{path} is of a run with other settings: {", ".join(differing)}. '
                'Resume with the settings it was started with, or choose another folder '
                'with out=...'
            )
        try:
            self.net.load_state_dict(weights)
            self.average = {name: average[name].to(value) for name, value in self.average.items()}
            self.optimizer.load_state_dict(optimizer)
            self.step = int(step)
        except Exception as error:  # the same: any part may be of any type
            raise ValueError(_damaged(path)) from error
        logger.info('Going on from step %d.', self.step)


def _damaged(path: Path) -> str:
    return (
        f'Expected a checkpoint of videomt train, {path} is damaged or of another kind. '
        'Choose another folder with out=..., or delete the file to start anew.'
    )


def open_device(name: str) -> torch.device:
    """The device of this name, once it is known to work.

    Raises:
        ValueError: this machine, or this build of torch, has no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA in the build
        raise ValueError(
            f'Expected a device that works here, {name} does not: {error} Try device=cpu.'
        ) from error
    return device


def start_from_scratch(net: VidEoMT) -> None:
    """Set what a pretrained backbone would bring otherwise.

    DINOv2 starts its layer scales at 1e-5, which lets nothing through for thousands of steps. A
    random table of positions has to learn which patches are neighbours; one of sines and cosines
    (Beyer et al., arXiv 2205.01580) knows. And an updater that starts as a multiple of the
    identity hands a query on as it is, rather than scrambled.
    """
    table = getattr(net.backbone.vit, 'pos_embed', None)
    if table is not None:
        side = net.config.table_size // net.config.patch_size
        positions = build_sincos2d_pos_embed([side, side], dim=net.config.embed_dim)
        with torch.no_grad():
            table[:, -side * side :] = positions
    for name, parameter in net.backbone.named_parameters():
        if name.endswith(('.gamma', '.gamma_1', '.gamma_2')):
            nn.init.ones_(parameter)
    if net.config.propagation == 'fusion':
        assert isinstance(net.query_updater, nn.Linear)
        # Below 1, or the state grows without bound: blocks add to the queries that pass, so the
        # next state is gain * (state + change) + q. Demo networks trained from a gain of 1 had a
        # state of norm 71 after 2 frames, 1e4 after 20 and 4e8 after 60, and found 17 % of the
        # objects over 60 frames; from 0.3 the norm stays at 22, and 94 % are found.
        nn.init.eye_(net.query_updater.weight)
        with torch.no_grad():
            net.query_updater.weight.mul_(UPDATER_GAIN)
        nn.init.zeros_(net.query_updater.bias)
