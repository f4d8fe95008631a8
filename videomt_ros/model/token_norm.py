"""Batch norm over the channels of tokens.

torch's own takes channels in the middle, keeps a count that nothing reads, cannot take a batch in
parts, and in several processes runs on GPUs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class TokenNorm(nn.Module):
    """Batch norm of tokens: (B, N, C) -> (B, N, C).

    In training the statistics are those of all tokens of a pass, or of all that `standardise` is
    given, over all processes; otherwise they are the running ones.
    """

    running_mean: Tensor
    """Mean of each channel, as training has left it, (C)."""
    running_var: Tensor
    """Variance of each channel, likewise."""
    eps = 1e-5
    momentum = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def scale(self) -> Tensor:
        """Compute by what the norm multiplies outside training, (C), in float32 or more."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        return self.weight.to(dtype) * torch.rsqrt(self.running_var.to(dtype) + self.eps)

    @torch.no_grad()
    def standardise(self, parts: Sequence[Tensor]) -> None:
        """Shift and scale tokens in place to mean 0 and variance 1 over all parts and processes.

        What is left of the norm is its weight and bias, so the parts can go on one after the
        other. The running statistics move once.

        Args:
            parts: tokens that need no gradient, (B, N, C) each.
        """
        count = torch.tensor(float(sum(part[..., 0].numel() for part in parts)))
        sums = torch.stack([part.sum((0, 1), dtype=torch.float32) for part in parts]).sum(0)
        count, mean = _sum_over_processes(count.to(sums.device)), _sum_over_processes(sums)
        mean /= count
        for part in parts:
            part.sub_(mean)
        # Two sums, since a variance from a mean of squares loses its digits.
        squares = torch.stack([part.float().square().sum((0, 1)) for part in parts]).sum(0)
        var = _sum_over_processes(squares) / count
        for part in parts:
            part.mul_(torch.rsqrt(var + self.eps))
        self._move(mean, var * count / (count - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise tokens."""
        return F.batch_norm(
            tokens.flatten(0, 1),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        ).view_as(tokens)

    @torch.no_grad()
    def _move(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of a pass."""
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)


def _sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values
