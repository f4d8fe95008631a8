"""Recognises files that hold differences to pretrained weights instead of the weights.

The authors of EoMT publish their DINOv3 models in this way (github.com/tue-mps/eomt,
`delta_weights`), so that nobody gets Meta's weights from them: each tensor of the encoder, its
buffers included, is the trained one less Meta's, and the heads are whole. Such a file has every
key and every shape of a whole one.

The layer norms tell them apart. Their weights start at 1, and training leaves most of them of that
order, though single channels may go to 0; the differences are small throughout. Layer scales tell
nothing, since DINOv2 starts them at 1e-5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import median

from torch import Tensor

from videomt_ros.model.backbone import pretrained_record, timm_name
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.layouts import VIT
from videomt_ros.model.weight_files import CheckpointError

SMALLEST_NORM = 0.05
"""Mean of |w| over the channels of a norm, as the median of all norms in the encoder's blocks,
below which weights are taken for differences. Training at EoMT's learning rates, 1e-4 times 0.6
for each block above, moves those of the lower blocks by less than 0.001."""

_NORMS = re.compile(r'blocks\.\d+\.norm[12]\.weight')
_PIXEL_STD = 'encoder.pixel_std'
"""End of the name of a buffer that no network reads; its difference is 0."""


def refuse_differences(
    weights: Mapping[str, Tensor],
    unread: Mapping[str, Tensor],
    origin: str,
    config: NetworkConfig,
    name: str = '',
) -> None:
    """Raise an error if weights are differences to pretrained ones.

    Args:
        weights: weights by their names in the state dict of a network, or of timm's ViT.
        unread: tensors of the file that no network reads, by their names in it.
        origin: place that the weights came from, for the message.
        config: configuration of the network.
        name: name of the model of timm that the ViT follows; '': that of the configuration.

    Raises:
        CheckpointError: they are differences; the message says to which weights.
    """
    size = _size_of_norms(weights)
    stds = [value for key, value in unread.items() if key.endswith(_PIXEL_STD)]
    are_stds_zero = bool(stds) and not any(bool(value.any()) for value in stds)
    if size >= SMALLEST_NORM and not are_stds_zero:
        return
    heads = [value for key, value in weights.items() if not key.startswith(VIT)]
    if size == 0 and not any(bool(value.any()) for value in heads):
        return  # zeros throughout, which stand for weights that somebody will fill in
    sign = 'its pixel_std is 0, which no image can be divided by'
    if size < SMALLEST_NORM:
        sign = f'the weights of the norms in the encoder are {size:.2g} on average, not about 1'
    name = (name or timm_name(config)).replace('_qkvb', '')  # its biases are 0
    owner = '' if config.family == 'eva02' else "Meta's "
    raise CheckpointError(
        f'{origin}: expected whole weights, got differences to pretrained ones, as EoMT publishes '
        f'its DINOv3 models: {sign}. Add {owner}weights, {pretrained_record(name).hf_hub_id} of '
        f'the Hugging Face hub (timm: {name}), to those of the encoder ("Differences to '
        'pretrained weights" in docs/troubleshooting.md has the lines), or give a file with whole '
        'weights.'
    )


def _size_of_norms(weights: Mapping[str, Tensor]) -> float:
    """Compute how large the weights of the norms in the blocks of a ViT are."""
    return median(
        float(value.abs().mean())
        for key, value in weights.items()
        if _NORMS.fullmatch(key.removeprefix(VIT))
    )
