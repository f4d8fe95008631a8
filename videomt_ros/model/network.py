"""What all networks here have in common: queries that segment a frame and carry on to the next.

Some transformer blocks process learned queries beside the tokens of the frame; each query yields a
class and a mask. The token that leaves the last block for a query decides what enters the next
frame in its place, which makes the query follow its object. `videomt` and `pmt` say where the
tokens of the frame come from and which blocks the queries pass.

Letters: B batch, T frames, Q queries, C channels, K classes, h w mask grid (a quarter of the
input), N tokens of a frame (prefix tokens and patches).
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, overload

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from videomt_ros.model.backbone import Backbone, check_frames, run_block
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.cpu_kernels import faster_inference, strips_are_faster
from videomt_ros.model.cpu_masks import masks_by_strips


class Outputs(NamedTuple):
    """Predictions for a frame (no T axis) or for a clip (T after B)."""

    class_logits: Tensor
    """Class scores before softmax, (B, [T,] Q, K + 1); the last entry is no object."""
    mask_logits: Tensor
    """Masks before the sigmoid, (B, [T,] Q, h, w)."""
    embeddings: Tensor
    """Query tokens after the final norm, (B, [T,] Q, C); those of one object are alike over time,
    whichever query shows it."""
    auxiliary: tuple[Outputs, ...] = ()
    """Predictions read before each query block, first block first; empty outside training mode."""


class Encoded(NamedTuple):
    """What a network reads from frames before the queries join; frames lie along the first axis.

    It needs no state, so all frames of a clip are encoded at once.
    """

    tokens: tuple[Tensor, ...]
    """Tokens of the frames, (B, N, C) each: one tensor for VidEoMT, one per tapped block for
    PMT."""
    rope: Tensor | None
    """Rotary positions of the patches in the blocks with queries, which all frames share; None
    without rotary positions."""
    grid: tuple[int, int]
    """Number of patches (vertical, horizontal)."""
    standardised: bool = False
    """Whether the tokens have passed `standardise`."""

    def to(self, dtype: torch.dtype) -> Encoded:
        """Convert the tokens to another type."""
        return self._replace(tokens=tuple(tokens.to(dtype) for tokens in self.tokens))

    def part(self, frames: slice) -> Encoded:
        """Return some of the frames."""
        return self._replace(tokens=tuple(tokens[frames] for tokens in self.tokens))


def join_encoded(parts: Sequence[Encoded]) -> Encoded:
    """Join frames of one size along the first axis."""
    levels = zip(*(part.tokens for part in parts), strict=True)
    return parts[0]._replace(tokens=tuple(torch.cat(level) for level in levels))


class UpscaleBlock(nn.Module):
    """Double the resolution of a feature map: (B, C, h, w) -> (B, C, 2h, 2w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(
            channels, channels, kernel_size=3, padding=1, groups=channels, bias=False
        )
        self.norm = LayerNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features with doubled height and width."""
        return self.norm(self.conv2(F.gelu(self.conv1(features))))


class VideoNetwork(nn.Module, ABC):
    """Segment a video frame by frame, with the queries as the only memory.

    The state is the tensor of queries (B, Q, C) that enters the next frame, so `step` keeps
    nothing on the module: any number of streams share one network. With q the learned queries
    and o_t the query tokens that leave the last block at frame t (before the final norm, or after
    it with `norm_queries`), `config.propagation` decides the state after frame t:

    - none: q, each frame on its own;
    - query: o_t;
    - fusion: query_updater(o_t) + q, with a linear query_updater (VidEoMT, PMT);
    - gru: GRUCell(input o_t, hidden h_t), h_t being the queries that entered frame t (LVMT).

    At frame 0 all of them start from q.
    """

    engine_name = 'eager'
    """Name of the network where it runs as an `engines.Engine`."""

    encoder_is_frozen = False
    """Whether the weights that `encode` uses are never trained, so that it records no gradient."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.embed_dim
        self.config = config
        self.backbone = Backbone(config)
        self.q = nn.Embedding(config.num_queries, channels)
        if config.propagation == 'fusion':
            self.query_updater: nn.Module = nn.Linear(channels, channels)
        elif config.propagation == 'gru':
            self.query_updater = nn.GRUCell(channels, channels)
        self.class_head = nn.Linear(channels, config.num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )
        self.upscale = nn.Sequential(
            *(UpscaleBlock(channels) for _ in range(config.num_upscale_blocks))
        )

    @property
    @abstractmethod
    def query_blocks(self) -> Any:
        """Blocks that see queries, first block first."""

    @property
    @abstractmethod
    def rotary(self) -> Any:
        """Module that computes rotary positions for these blocks; None without such positions."""

    @abstractmethod
    def _encode(self, frames: Tensor, grid: tuple[int, int]) -> Encoded:
        """Compute the tokens of frames; see `encode`."""

    @abstractmethod
    def _entering(self, encoded: Encoded) -> Tensor:
        """Compute the tokens of the frames that enter the blocks with queries, (B, N, C)."""

    @abstractmethod
    def _final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the norm before the heads."""

    @property
    def encoder(self) -> nn.Module:
        """Module that decides what `encode` computes; networks that have one module share it."""
        return self.backbone if self.encoder_is_frozen else self

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.q.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.q.weight.dtype

    def digest(self) -> str:
        """Hash the configuration and all weights, as 16 hexadecimal digits."""
        text = json.dumps(self.config.to_dict(), sort_keys=True)
        return hash_tensors(self.state_dict(), text)

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""
        return self.q.weight.expand(batch_size, -1, -1)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each.

        Args:
            frames: normalised RGB, (B, 3, H, W); H and W are multiples of the patch size.
            state: queries left by the frame before, (B, Q, C); see initial_state.

        Returns:
            Outputs with class_logits (B, Q, K + 1) and mask_logits (B, Q, h, w), and the next
            state (B, Q, C).

        Raises:
            ValueError: frames or state have another shape.
        """
        self.check_inputs(frames, state)
        return self.decode(self.encode(frames), state)

    def encode(self, frames: Tensor) -> Encoded:
        """Compute what needs no state.

        Args:
            frames: normalised RGB, (B, 3, H, W); H and W are multiples of the patch size.

        Raises:
            ValueError: the frames have another shape.
        """
        patch_size = self.config.patch_size
        check_frames(frames, patch_size)
        frozen = self.encoder_is_frozen and torch.is_grad_enabled()
        with torch.no_grad() if frozen else nullcontext(), faster_inference(frames):
            return self._encode(
                frames, (frames.shape[-2] // patch_size, frames.shape[-1] // patch_size)
            )

    def standardise(self, parts: Sequence[Encoded]) -> list[Encoded]:
        """Normalise encoded frames in place by the statistics of all of them, in training.

        Batch norms between encoder and decoder then take the frames of a training step in parts as
        they would take them together. A network without such norms leaves them as they are.
        """
        return list(parts)

    def decode(self, encoded: Encoded, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each, which is encoded already; see `step`.

        Raises:
            ValueError: the state has another shape.
        """
        self._check_state(state, encoded.tokens[0].shape[0])  # len() makes a trace constant
        with faster_inference(encoded.tokens[0]):
            tokens = self._entering(encoded)
            return self._decode(tokens, encoded.rope, state, encoded.grid, None)

    def check_inputs(self, frames: Tensor, state: Tensor) -> None:
        """Raise ValueError unless `step` takes frames and state of these shapes."""
        check_frames(frames, self.config.patch_size)
        self._check_state(state, frames.shape[0])

    def cut_gradient(self, state: Tensor) -> Tensor:
        """Detach a state, so that no gradient flows from the frames after it to those before.

        Without propagation the state is q itself, which keeps its gradient.
        """
        if self.config.propagation == 'none':
            return self.initial_state(state.shape[0])
        return state.detach()

    @overload
    def forward(
        self, clip: Tensor, masked_attention: Sequence[float] | None = None, state: None = None
    ) -> Outputs: ...

    @overload
    def forward(
        self, clip: Tensor, masked_attention: Sequence[float] | None, state: Tensor
    ) -> tuple[Outputs, Tensor]: ...

    def forward(
        self,
        clip: Tensor,
        masked_attention: Sequence[float] | None = None,
        state: Tensor | None = None,
    ) -> Outputs | tuple[Outputs, Tensor]:
        """Run B clips from the initial state, or parts of clips from a given state.

        Args:
            clip: normalised RGB, (B, T, 3, H, W); H and W are multiples of the patch size.
            masked_attention: for training, one probability per query block, 0..1, that a query
                attends only to the patches inside its own mask; None: all attend everywhere.
            state: queries left by the frame before the clip, (B, Q, C); None: the clip starts
                its video.

        Returns:
            Outputs with class_logits (B, T, Q, K + 1) and mask_logits (B, T, Q, h, w); in
            training mode also the outputs before each query block. If a state was given, the
            outputs and the next state (B, Q, C).

        Raises:
            ValueError: the clip or the state has another shape.
        """
        if clip.ndim != 5 or not clip.shape[1]:
            raise ValueError(f'Expected a clip of shape (B, T, 3, H, W), got {tuple(clip.shape)}.')
        batch_size, num_frames = clip.shape[:2]
        whole = state is None
        if state is None:
            state = self.initial_state(batch_size)
        self._check_state(state, batch_size)
        # All B * T frames at once, since no queries take part.
        encoded = self.encode(clip.flatten(0, 1))
        stacked, state = self.decode_clip(encoded, state, num_frames, masked_attention)
        return stacked if whole else (stacked, state)

    def decode_clip(
        self,
        encoded: Encoded,
        state: Tensor,
        num_frames: int,
        masked_attention: Sequence[float] | None = None,
    ) -> tuple[Outputs, Tensor]:
        """Run B clips of T frames that are encoded already; see `forward`.

        Args:
            encoded: B * T frames, clip after clip.
            state: queries that enter the first frames, (B, Q, C).
            num_frames: T.
            masked_attention: see `forward`.

        Returns:
            The outputs of all frames, and the next state (B, Q, C).
        """
        with faster_inference(encoded.tokens[0]):
            tokens = self._entering(encoded).unflatten(0, (-1, num_frames))
            if self.training and masked_attention is None:
                return self._decode_together(tokens, encoded.rope, state, encoded.grid)
            outputs = []
            for t in range(num_frames):
                output, state = self._decode(
                    tokens[:, t], encoded.rope, state, encoded.grid, masked_attention
                )
                outputs.append(output)
        return stack_outputs(outputs), state

    def _check_state(self, state: Tensor, batch_size: int) -> None:
        expected = (batch_size, self.config.num_queries, self.config.embed_dim)
        if tuple(state.shape) != expected:
            raise ValueError(
                f'Expected a state of shape {expected}, got {tuple(state.shape)}. '
                'Start a video with initial_state(batch_size).'
            )

    def _decode(
        self,
        tokens: Tensor,
        rope: Tensor | None,
        state: Tensor,
        grid: tuple[int, int],
        masked_attention: Sequence[float] | None,
    ) -> tuple[Outputs, Tensor]:
        """Run the query blocks and the heads: tokens (B, N, C), state (B, Q, C)."""
        num_queries = state.shape[1]
        tokens = torch.cat([state.to(tokens.dtype), tokens], dim=1)  # B, Q + N, C
        auxiliary = []
        recompute = self.training and self.backbone.checkpointing
        for index, block in enumerate(self.query_blocks):
            mask = None
            if self.training:
                # Read after the final norm, like the last output, as in EoMT; the released code
                # applies the norm here only for VidEoMT with `norm_queries`.
                auxiliary.append(self._predict(self._final_norm(tokens), grid))
                if masked_attention is not None and masked_attention[index] > 0:
                    mask = attention_mask(
                        auxiliary[-1].mask_logits, grid, tokens.shape[1], masked_attention[index]
                    )
            tokens = run_block(block, tokens, rope, mask, recompute)
        normed = self._final_norm(tokens)
        queries = (normed if self.config.norm_queries else tokens)[:, :num_queries]
        outputs = self._predict(normed, grid)._replace(auxiliary=tuple(auxiliary))
        return outputs, self._propagate(queries, state)

    def _decode_together(
        self, tokens: Tensor, rope: Tensor | None, state: Tensor, grid: tuple[int, int]
    ) -> tuple[Outputs, Tensor]:
        """Run clips in training, tokens (B, T, N, C), as `_decode` does frame by frame.

        Without masked attention no block needs a prediction, so one pass of the heads serves all
        frames and all levels: on a GPU, small networks otherwise wait for the host to start the
        many small kernels.
        """
        num_queries, num_frames = state.shape[1], tokens.shape[1]
        levels = []
        for t in range(num_frames):
            entering = torch.cat([state.to(tokens.dtype), tokens[:, t]], dim=1)
            levels.append(entering)
            for block in self.query_blocks:
                levels.append(
                    run_block(block, levels[-1], rope, None, self.backbone.checkpointing)
                )
            last = levels[-1]
            queries = self._final_norm(last) if self.config.norm_queries else last
            state = self._propagate(queries[:, :num_queries], state)
        stacked = torch.stack(levels, dim=1)  # B, T * levels, Q + N, C
        predicted = self._predict(self._final_norm(stacked.flatten(0, 1)), grid)
        class_logits, mask_logits, embeddings = (
            part.unflatten(0, (len(tokens), num_frames, -1)) for part in predicted[:3]
        )
        *auxiliary, final = (
            Outputs(class_logits[:, :, i], mask_logits[:, :, i], embeddings[:, :, i])
            for i in range(len(self.query_blocks) + 1)
        )
        return final._replace(auxiliary=tuple(auxiliary)), state

    def _predict(self, normed: Tensor, grid: tuple[int, int]) -> Outputs:
        """Predict classes and masks from tokens after the final norm, (B, Q + N, C)."""
        num_queries = self.config.num_queries
        queries = normed[:, :num_queries]  # B, Q, C
        patches = normed[:, num_queries + self.backbone.num_prefix_tokens :]
        embeddings = self.mask_head(queries)
        if strips_are_faster(patches):
            mask_logits = masks_by_strips(embeddings, patches, grid, self.upscale)
        else:
            features = self.upscale(patches.transpose(1, 2).unflatten(2, grid))  # B, C, h, w
            mask_logits = torch.einsum('bqc,bchw->bqhw', embeddings, features)
        return Outputs(self.class_head(queries), mask_logits, queries)

    def _propagate(self, queries: Tensor, state: Tensor) -> Tensor:
        """Compute the next state from the queries that left a frame and the state that entered."""
        propagation = self.config.propagation
        if propagation == 'none':
            return self.initial_state(state.shape[0])
        if propagation == 'query':
            return queries
        if propagation == 'fusion':
            return self.query_updater(queries) + self.q.weight
        # One cell serves all queries, each as a sequence of its own, as in LVMT (the successor of
        # VidEoMT). It runs in the precision of its weights, since autocast would round the state
        # in every frame.
        dtype = self.q.weight.dtype
        device = queries.device.type  # meta, on which work is counted, knows no autocast
        with nullcontext() if device == 'meta' else torch.autocast(device, enabled=False):
            hidden = self.query_updater(
                queries.flatten(0, 1).to(dtype), state.flatten(0, 1).to(dtype)
            )
        return hidden.unflatten(0, state.shape[:2])


def hash_tensors(tensors: Mapping[str, Tensor], text: str = '') -> str:
    """Hash a text and tensors with their names, types and shapes, as 16 hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors.items():
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        # One tensor at a time, as bytes: numpy has no bfloat16.
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def attention_mask(
    mask_logits: Tensor, grid: tuple[int, int], num_tokens: int, probability: float
) -> Tensor:
    """Build an attention mask that keeps queries inside their own masks (EoMT, section 3.2).

    Args:
        mask_logits: masks of the queries before the sigmoid, (B, Q, h, w).
        grid: number of patches (vertical, horizontal).
        num_tokens: number of queries, prefix tokens and patches together.
        probability: probability that a query is kept inside its mask, 0..1.

    Returns:
        (B, 1, num_tokens, num_tokens) bool, True where attention is allowed. A query whose mask
        is empty attends to queries and prefix alone.
    """
    batch_size, num_queries = mask_logits.shape[:2]
    inside = F.interpolate(mask_logits.detach(), grid, mode='bilinear').flatten(2) > 0
    # One draw per query, shared by all clips: the random numbers do not depend on the number of
    # clips, so a batch that is split into parts can repeat those of the whole.
    free = torch.rand(1, num_queries, device=inside.device) >= probability
    inside = inside | free[..., None]
    mask = inside.new_ones(batch_size, num_tokens, num_tokens)
    mask[:, :num_queries, -inside.shape[2] :] = inside
    return mask[:, None]


class StepModule(nn.Module):
    """The step of a network as a module whose outputs are plain tensors, for exporters."""

    def __init__(self, net: VideoNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return class logits, mask logits, embeddings and next state; see `VideoNetwork.step`."""
        outputs, next_state = self.net.step(frames, state)
        return outputs.class_logits, outputs.mask_logits, outputs.embeddings, next_state


def stack_outputs(outputs: Sequence[Outputs]) -> Outputs:
    """Join the outputs of T frames along a new axis after B."""
    return Outputs(
        torch.stack([output.class_logits for output in outputs], dim=1),
        torch.stack([output.mask_logits for output in outputs], dim=1),
        torch.stack([output.embeddings for output in outputs], dim=1),
        tuple(
            stack_outputs(level)
            for level in zip(*(output.auxiliary for output in outputs), strict=True)
        ),
    )
