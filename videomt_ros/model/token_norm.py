"""Batch norm over the channels of tokens.

torch's own takes channels in the middle, keeps a count that nothing reads, and in several
processes runs on GPUs alone.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class TokenNorm(nn.Module):
    """Batch norm of tokens: (B, N, C) -> (B, N, C).

    In training the statistics are those of all tokens of a pass, over all processes; otherwise
    they are the running ones.
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

    def affine(self) -> tuple[Tensor, Tensor]:
        """Compute what the norm is outside training, a scale and a shift of each channel.

        Returns:
            Scale and shift, (C) each, in float32 or more.
        """
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        scale = self.weight.to(dtype) * torch.rsqrt(self.running_var.to(dtype) + self.eps)
        return scale, self.bias.to(dtype) - self.running_mean.to(dtype) * scale

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise tokens."""
        if self.training and dist.is_initialized() and dist.get_world_size() > 1:
            return self._normalise_together(tokens)
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

    def _normalise_together(self, tokens: Tensor) -> Tensor:
        """Normalise by the statistics of all processes, each of which must take part."""
        with torch.autocast(tokens.device.type, enabled=False):
            values = tokens.flatten(0, 1).to(torch.promote_types(tokens.dtype, torch.float32))
            # Two sums, since a variance from a mean of squares loses its digits.
            sums = torch.cat([values.sum(0), values.new_tensor([len(values)])])
            sums = all_reduce(sums)
            count = sums[-1].detach()
            mean = sums[:-1] / count
            centred = values - mean
            var = all_reduce(centred.square().sum(0)) / count
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                sample_var = var * count / (count - 1)
                self.running_var.lerp_(sample_var.to(self.running_var), self.momentum)
            normed = centred * torch.rsqrt(var + self.eps)
            return torch.addcmul(self.bias, normed, self.weight).to(tokens.dtype).view_as(tokens)
