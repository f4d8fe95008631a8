"""One step of training, as Lightning runs it: clips -> losses -> gradients -> new weights.

Lightning's optimisation is manual here, since a step has several backward passes: one for each
chunk of a long clip, and one for each part of a batch that is too large for the memory.

The result of a step depends only on its number and the settings of the run. Losses are divided by
the totals of the batch over all processes, and the random generator is seeded for each part, so
that the loss curve is the same for any number of processes and parts, up to rounding.

Letters: B batch, T frames, Q queries, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from videomt_ros.model import VideoNetwork
from videomt_ros.model.checkpoint import describe
from videomt_ros.model.network import Encoded, Outputs
from videomt_ros.training.callbacks import RunningMean
from videomt_ros.training.clips import Batch
from videomt_ros.training.criterion import Criterion, chunk_losses
from videomt_ros.training.data import RunData
from videomt_ros.training.data_fit import KEY, describe_data
from videomt_ros.training.early_end import NonFiniteLoss
from videomt_ros.training.optimiser import (
    learning_rate_factors,
    masked_attention_probabilities,
    parameter_groups,
    set_learning_rates,
)
from videomt_ros.training.run_settings import TrainSettings

LOSSES = ('class', 'mask', 'dice')


class TrainModule(pl.LightningModule):
    """The network, its losses and its optimiser."""

    pixel_mean: Tensor
    """Mean colour that is subtracted from frames, (3, 1, 1)."""
    pixel_std: Tensor
    """Standard deviation of the colour by which frames are divided, (3, 1, 1)."""

    def __init__(self, settings: TrainSettings, net: VideoNetwork) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.net = net.train()
        self.criterion = Criterion(settings.losses)
        for name in ('pixel_mean', 'pixel_std'):
            values = torch.tensor(getattr(net.config, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over the groups of `parameter_groups`."""
        return torch.optim.AdamW(
            self.parameter_groups(),
            lr=self.settings.learning_rate,
            # One kernel per group: small networks on a GPU otherwise wait for the host. In fp16 a
            # fused step would undo the scale of the gradients after they are clipped.
            fused=getattr(self.trainer.precision_plugin, 'scaler', None) is None,
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `optimiser.parameter_groups`."""
        settings = self.settings
        return parameter_groups(
            self.net, settings.weight_decay, settings.layer_decay, settings.decay_all
        )

    def training_step(self, batch: tuple[Batch, ...], batch_idx: int) -> dict[str, Any]:
        """Make one step of the optimiser.

        Args:
            batch: the parts into which this process's share of the batch is split.
            batch_idx: ignored; the step of the batch counts.

        Returns:
            `record`, a dictionary with the floats `loss`, `class`, `mask` and `dice` of the batch
            over all processes, since Lightning expects a `loss` at the top level to be a tensor.

        Raises:
            NonFiniteLoss: a loss or the gradient is not finite.
        """
        settings, step = self.settings, batch[0].step
        optimizer = cast(Any, self.optimizers())
        factors = learning_rate_factors(
            step,
            settings.warmup_steps,
            settings.vit_warmup_steps,
            settings.total_steps,
            settings.decay_power,
        )
        set_learning_rates(optimizer, settings.learning_rate, factors)
        optimizer.zero_grad(set_to_none=True)
        totals = self._totals(batch)
        # Lightning runs this whole method under autocast, but losses are in float32.
        with torch.autocast(self.device.type, enabled=False):
            inputs: Iterable[Sequence[Tensor | Encoded]] = (
                self._encoded(batch) if self.net.encoder_is_frozen else map(self._chunks, batch)
            )
            losses = torch.stack(
                [
                    self._learn(part, chunks, totals, is_last=i == len(batch) - 1)
                    for i, (part, chunks) in enumerate(zip(batch, inputs, strict=True))
                ]
            )
        record = self._record(losses)
        if not math.isfinite(record['loss']):
            bad = (~losses.isfinite().all(dim=1)).tolist()
            named = [part.origins for part, is_bad in zip(batch, bad, strict=True) if is_bad]
            raise NonFiniteLoss(step, record, tuple(name for names in named for name in names))
        try:
            optimizer.step()
        except FloatingPointError:
            names = tuple(name for part in batch for name in part.origins)
            raise NonFiniteLoss(step, record, names, what='gradient') from None
        self.log('loss', record['loss'], prog_bar=True, logger=False)
        return {'record': record}

    def _totals(self, parts: Sequence[Batch]) -> Tensor:
        """Sum the totals of the batch over all processes; see `Criterion.count_totals`."""
        num_queries = self.net.config.num_queries
        phase = self.settings.phase(parts[0].step)
        own = sum(
            self.criterion.count_totals(part.targets, num_queries, phase.chunk_frames)
            for part in parts
        )
        return self._sum(cast(Tensor, own).to(self.device))

    def _sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return cast(Tensor, self.trainer.strategy.reduce(values, reduce_op='sum'))

    def _record(self, losses: Tensor) -> dict[str, float]:
        """Sum losses (parts, 3) over parts and processes, and copy them to the host."""
        sums = self._sum(losses.sum(dim=0))
        values = torch.cat([sums.sum()[None], sums]).tolist()
        return dict(zip(('loss', *LOSSES), values, strict=True))

    def _seed(self, step: int) -> None:
        """Seed torch for a part of the batch of a step.

        Random draws depend on the step alone, so that a resumed run repeats those of an
        uninterrupted one, and each part those of the whole batch.
        """
        torch.manual_seed((self.settings.seed << 32) + step)

    def _chunks(self, part: Batch) -> tuple[Tensor, ...]:
        """Cut the frames of a part into chunks of consecutive frames, (B, t, 3, H, W) each."""
        num_frames = part.frames.shape[1]
        chunk_frames = self.settings.phase(part.step).chunk_frames or num_frames
        return part.frames.split(chunk_frames, dim=1)

    def _encoded(self, parts: Sequence[Batch]) -> list[tuple[Encoded, ...]]:
        """Encode all chunks of all parts with a frozen encoder, before the first is decoded.

        Batch norms behind the encoder need the statistics of the whole batch, or a step would
        depend on how it is cut into parts and chunks. The features are kept in the precision of
        the run.

        Returns:
            For each part its chunks.
        """
        numbers, encoded = [], []
        dtype = torch.float32
        for number, part in enumerate(parts):
            for frames in self._chunks(part):
                self._seed(part.step)  # for positions that all frames of a step share
                with self.trainer.precision_plugin.forward_context():
                    device = self.device.type
                    if torch.is_autocast_enabled(device):
                        dtype = torch.get_autocast_dtype(device)
                    inputs = self.normalise(frames.to(self.device)).flatten(0, 1)
                    encoded.append(self.net.encode(inputs))
                    numbers.append(number)
        chunks = [each.to(dtype) for each in self.net.standardise(encoded)]
        return [
            tuple(chunk for chunk, owner in zip(chunks, numbers, strict=True) if owner == number)
            for number in range(len(parts))
        ]

    def _learn(
        self,
        part: Batch,
        chunks: Sequence[Tensor | Encoded],
        totals: Tensor,
        is_last: bool,
    ) -> Tensor:
        """Add the gradients of a part of the batch.

        Args:
            part: clips on the host.
            chunks: their chunks: frames on the host, or encoded frames.
            totals: totals of the batch over all processes.
            is_last: whether the part is the last one, after which processes exchange gradients.

        Returns:
            Losses of the part, (3,).
        """
        settings, step = self.settings, part.step
        self._seed(step)
        probabilities = masked_attention_probabilities(
            step,
            settings.total_steps,
            settings.masked_attention_until,
            self.net.config.num_query_blocks,
            in_turn=settings.stage == 'image',
        )
        masked = probabilities if any(probabilities) else None

        batch_size = len(part.frames)

        def forward(chunk: Tensor | Encoded, state: Tensor) -> tuple[Outputs, Tensor]:
            with self.trainer.precision_plugin.forward_context():
                if isinstance(chunk, Encoded):
                    num_frames = len(chunk.tokens[0]) // batch_size
                    return self.net.decode_clip(chunk, state, num_frames, masked)
                return self.net(self.normalise(chunk.to(self.device)), masked, state)

        sums = torch.zeros(len(LOSSES), device=self.device)
        for chunk, losses in enumerate(
            chunk_losses(
                forward,
                self.net.cut_gradient,
                self.criterion,
                self.net.initial_state(batch_size),
                chunks,
                part.targets.to(self.device),
                totals,
            )
        ):
            parts = torch.stack([losses[name] for name in LOSSES])
            with self._exchange(is_last and chunk == len(chunks) - 1):
                # DDP averages gradients over processes, but the losses are to be summed.
                self.manual_backward(parts.sum() * self.trainer.world_size)
            sums += parts.detach()
        return sums

    def _exchange(self, wanted: bool) -> AbstractContextManager[None]:
        """Choose whether a backward pass averages the gradients over processes at its end."""
        strategy = self.trainer.strategy
        if wanted or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        return strategy.block_backward_sync()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients, which Lightning has unscaled by now in fp16.

        Raises:
            FloatingPointError: a gradient is not finite, and the gradient scaler of fp16 will not
                skip the step.
        """
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.grad_clip_norm)
        if math.isfinite(norm):
            return
        # The scaler skips such a step and lowers its scale. If the scale is below 1 already, it is
        # not the cause.
        scaler = getattr(self.trainer.precision_plugin, 'scaler', None)
        if scaler is None or scaler.get_scale() < 1:
            raise FloatingPointError

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalise uint8 frames (B, T, 3, H, W) for the network."""
        return (frames.float() - self.pixel_mean) / self.pixel_std

    def deliverable(self) -> Mapping[str, Tensor]:
        """Return the weights that the run would deliver now: their mean if it keeps one."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunningMean):
                return cast(TrainModule, callback.module).net.state_dict()
        return self.net.state_dict()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings, for a resume to compare, and the configuration for `load_model`."""
        checkpoint['videomt_ros'] = describe(self.net.config)
        checkpoint['settings'] = self.settings.deciding()
        if isinstance(data := getattr(self.trainer, 'datamodule', None), RunData):
            checkpoint[KEY] = describe_data(data.mixture)
