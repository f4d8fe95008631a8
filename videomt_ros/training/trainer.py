"""The training loop: stages of clips, checkpoints that a run resumes from, averaged weights."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from videomt_ros.model import VidEoMT, save_model
from videomt_ros.training.clips import Batch, SyntheticClips
from videomt_ros.training.criterion import Criterion
from videomt_ros.training.schedule import learning_rate_factor, masked_attention_probability
from videomt_ros.training.settings import TrainSettings

logger = logging.getLogger(__name__)


class Trainer:
    """Train a network from scratch and leave its averaged weights in `settings.out`.

    A run that is interrupted goes on from its last checkpoint with `run(resume=True)`.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.out = Path(settings.out)
        self.device = torch.device(settings.device)
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.net = VidEoMT(settings.network)
        start_from_scratch(self.net)
        self.net.to(self.device).train()
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.criterion = Criterion(settings.losses)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.net, settings.weight_decay), lr=settings.learning_rate
        )
        self.step = 0

    def run(self, resume: bool = False) -> Path:
        """Train to the last step.

        Returns:
            The file with the averaged weights, one that `load_model` reads.

        Raises:
            ValueError: the loss is not finite, or a checkpoint is of another run.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            self.load_checkpoint()
        started, first_step = time.monotonic(), self.step
        with open(self.out / 'log.jsonl', 'a') as log:
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
        for index, stage in enumerate(settings.stages):
            clips = SyntheticClips(
                settings.seed + index,
                stage.steps,
                stage.batch_size,
                stage.clip_frames,
                settings.image_sizes,
                stage.max_stride,
            )
            rest = range(max(0, self.step - done), stage.steps)
            done += stage.steps
            yield from DataLoader(
                Subset(clips, rest),
                batch_size=None,
                num_workers=settings.workers,
                pin_memory=self.device.type == 'cuda',
            )

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        settings = self.settings
        # Points and masked queries are drawn anew for each step from its own seed, so that a
        # resumed run draws what an unbroken one would.
        torch.manual_seed((settings.seed << 32) + self.step)
        factor = learning_rate_factor(
            self.step, settings.warmup_steps, settings.total_steps, settings.decay_power
        )
        for group in self.optimizer.param_groups:
            group['lr'] = settings.learning_rate * factor
        probability = masked_attention_probability(
            self.step, settings.total_steps, settings.masked_attention_until
        )
        masked = [probability] * settings.network.num_query_blocks if probability else None
        targets = batch.targets.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == 'cuda'):
            outputs = self.net(self.normalise(batch.frames.to(self.device)), masked)
        losses = self.criterion(outputs, targets)
        loss = torch.stack(list(losses.values())).sum()
        values = torch.stack([loss, *losses.values()]).detach().tolist()
        record = dict(zip(['loss', *losses], values, strict=True))
        if not loss.isfinite():
            raise ValueError(
                f'The loss is not finite at step {self.step}: {record}. Lower learning_rate and '
                f'go on from the last checkpoint in {self.out} with --resume.'
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
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
        """Move the averaged weights towards the present ones."""
        # A young average follows closely, or it would hold on to the random start.
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save_average(self) -> Path:
        """Write the averaged weights as half precision; returns the file."""
        net = VidEoMT(self.settings.network)
        net.load_state_dict(self.average)
        path = self.out / 'model.safetensors'
        save_model(net, path, dtype=torch.float16)
        return path

    @property
    def checkpoint_path(self) -> Path:
        """Where the run can be resumed from."""
        return self.out / 'checkpoint.pt'

    def save_checkpoint(self) -> None:
        """Write everything a resume needs; a crash while writing leaves the last one whole."""
        content = {
            'step': self.step,
            'network': self.settings.network.to_dict(),
            'weights': self.net.state_dict(),
            'average': self.average,
            'optimizer': self.optimizer.state_dict(),
        }
        partial = self.checkpoint_path.with_suffix('.partial')
        torch.save(content, partial)
        os.replace(partial, self.checkpoint_path)

    def load_checkpoint(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.checkpoint_path.exists():
            logger.info('%s holds no checkpoint: starting from step 0.', self.out)
            return
        content: dict[str, Any] = torch.load(
            self.checkpoint_path, map_location=self.device, weights_only=True
        )
        if content['network'] != self.settings.network.to_dict():
            raise ValueError(
                f'{self.checkpoint_path} holds another network than the run file asks for. '
                'Give the run another folder with out=..., or leave out --resume.'
            )
        self.step = content['step']
        self.net.load_state_dict(content['weights'])
        self.average = content['average']
        self.optimizer.load_state_dict(content['optimizer'])
        logger.info('Going on from step %d.', self.step)


def start_from_scratch(net: VidEoMT) -> None:
    """Set what a pretrained backbone would bring otherwise.

    DINOv2 starts its layer scales at 1e-5, which lets nothing through for thousands of steps. A
    random table of positions has to learn which patches are neighbours; one of sines and cosines
    (Beyer et al., arXiv 2205.01580) knows. And an updater that starts as the identity hands a
    query on as it is, rather than scrambled.
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
        nn.init.eye_(net.query_updater.weight)
        nn.init.zeros_(net.query_updater.bias)


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (norms, biases, layer scales) and the queries do not."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        matrix = parameter.ndim > 1 and name != 'q.weight' and not name.endswith('_token')
        (decayed if matrix else free).append(parameter)
    return [
        {'params': decayed, 'weight_decay': weight_decay},
        {'params': free, 'weight_decay': 0.0},
    ]
