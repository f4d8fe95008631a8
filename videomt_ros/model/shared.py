"""Several networks on the same frames, which share the pass of one frozen encoder.

The encoder of the architecture `pmt` keeps its pretrained weights, so files that were trained for
different tasks hold the same ones. Networks of such files can have one encoder in memory and run
it once for all of their decoders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from videomt_ros.model.checkpoint import load_model
from videomt_ros.model.network import Encoded, Outputs, VideoNetwork, hash_tensors

logger = logging.getLogger(__name__)

_ENCODER_FIELDS = (
    'family',
    'embed_dim',
    'depth',
    'num_heads',
    'mlp_ratio',
    'patch_size',
    'table_size',
    'taps',
)
"""Settings of a network that decide, with the weights, what its encoder computes."""
_INPUT_FIELDS = ('pixel_mean', 'pixel_std')
"""Settings that decide which values the pixels of a frame have."""


class NetworkGroup(Sequence[VideoNetwork]):
    """Networks that process the same frames; those with one encoder share its pass.

    Like a network it keeps nothing of a video, so any number of streams can use it. Each network
    can also be used alone.
    """

    def __init__(self, networks: Sequence[VideoNetwork]) -> None:
        """Have networks share an encoder where theirs are equal.

        Their modules `backbone` are replaced by the one of the first network with an equal one.

        Args:
            networks: networks on one device, in evaluation mode.

        Raises:
            ValueError: there is no network.
        """
        if not networks:
            raise ValueError('Expected one network or more, got none.')
        self._networks = tuple(networks)
        found: list[VideoNetwork] = []
        """The first network of each encoder."""
        digests: dict[int, str] = {}
        for net in self._networks:
            reasons = [_why_apart(first, net, digests) for first in found]
            if '' in reasons:
                net.backbone = found[reasons.index('')].backbone
            else:
                found.append(net)
        first = self._networks[0]
        self.apart = {
            place: _why_apart(first, net, digests)
            for place, net in enumerate(self._networks)
            if net.encoder is not first.encoder
        }
        """Why a network does not share the encoder pass of the first one, by its place."""

    @overload
    def __getitem__(self, place: int) -> VideoNetwork: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[VideoNetwork, ...]: ...

    def __getitem__(self, place: int | slice) -> VideoNetwork | tuple[VideoNetwork, ...]:
        """Return the network at a place, or some of the networks."""
        return self._networks[place]

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self._networks)

    def __iter__(self) -> Iterator[VideoNetwork]:
        """Iterate over the networks, in the order in which they were given."""
        return iter(self._networks)

    @property
    def num_encoders(self) -> int:
        """Number of encoder passes that `step` makes for one tensor of frames."""
        return len({id(net.encoder) for net in self})

    def to(self, *arguments: Any, **keywords: Any) -> NetworkGroup:
        """Move or convert all networks, as `torch.nn.Module.to` does."""
        for net in self:
            net.to(*arguments, **keywords)
        return self

    def initial_states(self, batch_size: int = 1) -> list[Tensor]:
        """Return the queries of each network that enter a first frame, (B, Q, C)."""
        return [net.initial_state(batch_size) for net in self]

    def step(
        self, frames: Tensor | Sequence[Tensor], states: Sequence[Tensor]
    ) -> list[tuple[Outputs, Tensor]]:
        """Advance B videos by one frame each, with every network.

        What each network returns is what its own `step` does.

        Args:
            frames: normalised RGB for all networks, (B, 3, H, W), or one such tensor for each.
                Networks with one encoder share its pass where they are given the same tensor.
            states: queries of each network that its frame before left, (B, Q, C); see
                `initial_states`.

        Returns:
            Outputs and next state of each network, in the order of the networks.

        Raises:
            ValueError: frames or a state have another shape, their number is another one, or one
                tensor was given to networks that normalise pixels differently.
        """
        if isinstance(frames, Tensor):
            self._check_pixels()
            frames = [frames] * len(self)
        for what, given in (('tensors of frames', frames), ('states', states)):
            if len(given) != len(self):
                raise ValueError(
                    f'Expected {len(self)} {what}, one per network, got {len(given)}.'
                )
        encoded: dict[tuple[int, int], Encoded] = {}
        results = []
        for net, own, state in zip(self, frames, states, strict=True):
            net.check_inputs(own, state)
            key = (id(net.encoder), id(own))
            if key not in encoded:
                encoded[key] = net.encode(own)
            results.append(net.decode(encoded[key], state))
        return results

    def _check_pixels(self) -> None:
        """Raise ValueError unless all networks take pixels of the same values."""
        for net in self:
            reason = _difference(_INPUT_FIELDS, self[0], net)
            if reason:
                raise ValueError(
                    f'Expected one tensor of frames for each network, since {reason}; got one for '
                    'all.'
                )


def load_models(sources: Sequence[str | Path], **overrides: Any) -> NetworkGroup:
    """Load several networks, of which those with equal frozen encoders share one.

    Encoders are equal if a hash of all of their weights is, as they are in float32 after loading.
    Networks that do not share the encoder of the first one are logged with the reason, and so are
    those whose `test_size` differs: they share a pass for frames of one size alone, while a
    VideoStream without `input_size` resizes images to each network's own.

    Args:
        sources: what `load_model` takes, for each network.
        overrides: fields of NetworkConfig for all of them, such as test_size; each wins over what
            file and preset say.

    Returns:
        The networks on the CPU in float32, in eval mode.

    Raises:
        CheckpointError: weights can't be found or read, or don't fit.
        ValueError: an override is unknown or out of range, or there are no sources, or one that
            is not in a list.
    """
    if isinstance(sources, str | Path):
        raise ValueError(f'Expected a list of sources, got {sources}. Put it in one: [...].')
    group = NetworkGroup([load_model(source, **overrides) for source in sources])
    for reason in (*group.apart.values(), *different_sizes(group)):
        logger.warning('%s.', reason)
    return group


def different_sizes(group: NetworkGroup) -> list[str]:
    """Name the networks that share the encoder of the first one and resize images differently."""
    return [
        f'{_name(group[0])} and {_name(net)} share an encoder, but its pass only where they are '
        f'given one size of frames, since {difference}'
        for place, net in enumerate(group)
        if place not in group.apart
        and (difference := _difference(('test_size', 'size_divisor'), group[0], net))
    ]


def _why_apart(first: VideoNetwork, other: VideoNetwork, digests: dict[int, str]) -> str:
    """Say why two networks cannot share an encoder pass; empty if they can.

    Args:
        first: a network.
        other: another one.
        digests: hashes of the encoders that were computed before, by the network's id.
    """
    names = f'{_name(first)} and {_name(other)}'
    for net in (first, other):
        if not net.encoder_is_frozen:
            return (
                f'{names} do not share an encoder, since that of {_name(net)} was trained with '
                f'its decoder (architecture {net.config.architecture})'
            )
    reason = _difference((*_ENCODER_FIELDS, *_INPUT_FIELDS), first, other)
    if reason:
        return f'{names} do not share an encoder, since {reason}'
    if (first.device, first.dtype) != (other.device, other.dtype):
        return f'{names} do not share an encoder, since they differ in device or number format'
    if first.backbone is other.backbone:
        return ''
    for net in (first, other):
        if id(net) not in digests:
            digests[id(net)] = hash_tensors(net.backbone.state_dict())
    if digests[id(first)] != digests[id(other)]:
        return f'{names} do not share an encoder, since its weights differ'
    return ''


def _difference(fields: Sequence[str], first: VideoNetwork, other: VideoNetwork) -> str:
    """Say in which of some settings two networks differ; empty if in none."""
    for field in fields:
        values = [getattr(net.config, field) for net in (first, other)]
        if values[0] != values[1]:
            return f'{field} is {values[0]} and {values[1]}'
    return ''


def _name(net: VideoNetwork) -> str:
    return net.config.name or 'a network without a name'
