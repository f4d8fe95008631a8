"""PMT and LVMT: a frozen ViT, and beside it a decoder for the queries.

PMT (arXiv 2603.25398) hands its queries on by a linear layer (`propagation` fusion), LVMT (arXiv
2609.34895) by a recurrent cell (`propagation` gru); the networks are the same but for this. The
ViT sees the frame alone and keeps its pretrained weights, so several decoders can share one pass
of it.

Letters as in `network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from videomt_ros.model.backbone import RotaryPositions
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.network import Encoded, VideoNetwork
from videomt_ros.model.token_norm import TokenNorm


class PMT(VideoNetwork):
    """A network whose queries pass the blocks of a decoder, beside the tokens of a frozen ViT.

    After some blocks of the ViT its tokens pass the final norm and a batch norm, an MLP with a
    skip connection, and a scale; their sum enters the decoder.
    """

    encoder_is_frozen = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        channels, levels = config.embed_dim, len(config.taps)
        hidden = round(channels * config.decoder_mlp_ratio)
        self.backbone.requires_grad_(False)
        self.bn = nn.ModuleList(TokenNorm(channels) for _ in range(levels))
        self.lateral_projections = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, channels // 2),
                nn.GELU(),
                nn.Linear(channels // 2, channels),
            )
            for _ in range(levels)
        )
        self.scalers = nn.ParameterList(torch.ones(channels) for _ in range(levels))
        self.blocks = nn.ModuleList(
            # DINOv3's design, with rotary positions for the patches alone.
            EvaBlock(
                channels,
                config.num_heads,
                mlp_ratio=(hidden + 0.5) / channels,  # timm rounds the width down
                num_prefix_tokens=config.num_queries + self.backbone.num_prefix_tokens,
                rotate_half=True,
                init_values=1.0,
                norm_layer=partial(nn.LayerNorm, eps=1e-5),
            )
            for _ in range(config.num_query_blocks)
        )
        self.rope = RotaryPositions(channels // config.num_heads)
        self.decoder_norm = nn.LayerNorm(channels, eps=1e-5)
        self.lateral = LateralPath()

    @property
    def query_blocks(self) -> Any:
        """Blocks of the decoder."""
        return self.blocks

    @property
    def rotary(self) -> Any:
        """Module that computes the rotary positions of the decoder."""
        return self.rope

    def train(self, mode: bool = True) -> PMT:
        """Set the mode of all parts but the encoder, which stays in evaluation mode.

        Its rotary positions follow the mode: training may scale them at random, and the decoder
        with them, as the released code does.
        """
        super().train(mode)
        self.backbone.eval()
        self.lateral.forget()  # torch does not count the changes of running statistics
        if self.config.family == 'dinov3':
            self.backbone.vit.rope.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PMT:
        self.lateral.forget()  # moved or converted weights keep their identity
        super()._apply(fn, recurse)
        return self

    def _encode(self, frames: Tensor, grid: tuple[int, int]) -> Encoded:
        tokens, rope = self.backbone.encode_taps(frames, self.config.taps)
        if not (self.training and self.config.family == 'dinov3'):
            rope = self.rope.get_embed(grid)
        return Encoded(tokens, rope, grid)

    def standardise(self, parts: Sequence[Encoded]) -> list[Encoded]:
        """Normalise encoded frames in place as `bn` does in training, but for weight and bias."""
        for norm, *level in zip(self.bn, *(part.tokens for part in parts), strict=True):
            norm.standardise(level)
        return [part._replace(standardised=True) for part in parts]

    def _entering(self, encoded: Encoded) -> Tensor:
        return self.lateral(self, encoded)

    def _final_norm(self, tokens: Tensor) -> Tensor:
        return self.decoder_norm(tokens)


class LateralPath(nn.Module):
    """The way from the tapped blocks of a PMT into its decoder; the weights are the network's.

    Outside training, and where no gradient is recorded, its batch norms and scales are folded into
    the layers around them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folded: _Folded | None = None

    def forward(self, net: PMT, encoded: Encoded) -> Tensor:
        """Compute the tokens that enter the decoder, (B, N, C)."""
        if not torch.is_grad_enabled() and not net.training:
            return self._fold(net)(encoded.tokens)
        total: Any = 0
        modules: Any = zip(
            encoded.tokens, net.bn, net.lateral_projections, net.scalers, strict=True
        )
        for tokens, norm, mlp, scaler in modules:
            if encoded.standardised:
                normed = torch.addcmul(norm.bias, tokens, norm.weight)
            else:
                normed = norm(tokens)
            total = total + (normed + mlp(normed)) * scaler
        return total

    def forget(self) -> None:
        """Drop the folded weights, after a change that `_fold` would not see."""
        self._folded = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is folded out of copies, which compute it from their own weights."""
        return self.__dict__ | {'_folded': None}

    def _fold(self, net: PMT) -> _Folded:
        """Return the folded weights, which are computed again where a weight has changed."""
        # A trace takes the folding in, and its compiler computes it once.
        if torch.compiler.is_compiling():
            return _Folded.of(net)
        sources = (
            *net.bn.parameters(), *net.bn.buffers(), *net.lateral_projections.parameters(),
            *net.scalers.parameters(),
        )  # fmt: skip
        # torch counts no changes of tensors that were made in inference mode.
        if any(each.is_inference() for each in sources):
            return _Folded.of(net)
        versions = tuple(each._version for each in sources)
        known = self._folded
        if known is None or not known.is_current(sources, versions):
            values = tuple(each.detach() for each in sources)
            known = _Folded.of(net)._replace(sources=sources, versions=versions, values=values)
            self._folded = known
        return known


class _Folded(NamedTuple):
    """The lateral path with its batch norms and scales folded into the layers around them.

    Outside training a batch norm is an affine map of the channels. But for the mean, it goes into
    the first layer of the MLP behind it and into the scale of the skip connection; the last layers
    of all MLPs become one, since their results are added up. The mean is subtracted first: some
    channels of DINO's tokens have a mean of many standard deviations, whose products with the
    weights would cancel with loss of digits.
    """

    means: tuple[Tensor, ...]
    """Running mean of each batch norm, (C)."""

    inner: tuple[tuple[Tensor, Tensor], ...]
    """Weight (C / 2, C) and bias of the first layer of each MLP."""
    outer: Tensor
    """Weights of the last layers, side by side: (C, L * C / 2) for L tapped blocks."""
    bias: Tensor
    """Sum of all that is constant, (C)."""
    scales: tuple[Tensor, ...]
    """Scale of each skip connection, (C)."""
    sources: tuple[Tensor, ...] = ()
    """Tensors of the network that this was computed from."""
    versions: tuple[int, ...] = ()
    """Number of changes in place of each of them until then."""
    values: tuple[Tensor, ...] = ()
    """Their values, since a tensor may be given others (`weight.data = ...`) without a change in
    place; kept, so that no others take their place in memory."""

    @classmethod
    @torch.no_grad()
    def of(cls, net: PMT) -> _Folded:
        """Fold the lateral path of a network, in float32 or more."""
        means: list[Tensor] = []
        inner, outer, scales = [], [], []
        bias: Any = 0
        modules: Any = zip(net.bn, net.lateral_projections, net.scalers, strict=True)
        for norm, mlp, scaler in modules:
            scale = norm.scale()
            means.append(norm.running_mean)
            first, last = mlp[0], mlp[2]
            weight = first.weight.to(scale.dtype)
            # No matrix product, which autocast would round.
            inner.append((weight * scale, first.bias + (weight * norm.bias).sum(1)))
            outer.append(last.weight * scaler.to(scale.dtype)[:, None])
            scales.append(scaler * scale)
            bias = bias + scaler.to(scale.dtype) * (norm.bias + last.bias)
        dtype = net.dtype
        return cls(
            # A copy, since the running mean may change in place.
            tuple(mean.to(dtype, copy=True) for mean in means),
            tuple((weight.to(dtype), shift.to(dtype)) for weight, shift in inner),
            torch.cat(outer, dim=1).to(dtype),
            bias.to(dtype),
            tuple(scale.to(dtype) for scale in scales),
        )

    def is_current(self, sources: tuple[Tensor, ...], versions: tuple[int, ...]) -> bool:
        """Tell whether it was computed from these tensors as they are."""
        if versions != self.versions:
            return False
        known = zip(sources, self.sources, self.values, strict=True)
        return all(
            one is other and one.data_ptr() == values.data_ptr() for one, other, values in known
        )

    def __call__(self, levels: tuple[Tensor, ...]) -> Tensor:
        """Compute the tokens that enter the decoder from those of the tapped blocks."""
        centred = [tokens - mean for tokens, mean in zip(levels, self.means, strict=True)]
        hidden = [
            F.gelu(F.linear(tokens, *layer))
            for tokens, layer in zip(centred, self.inner, strict=True)
        ]
        total = F.linear(torch.cat(hidden, dim=-1), self.outer, self.bias)
        for tokens, scale in zip(centred, self.scales, strict=True):
            total = torch.addcmul(total, tokens, scale)
        return total
