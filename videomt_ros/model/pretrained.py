"""Weights of timm's pretrained ViTs for the backbone of a network.

timm's own code converts them: a patch embedding of another size is resampled so that it answers
enlarged patches alike (FlexiViT, arXiv 2212.08013), a table of positions bicubically. So DINOv2
and EVA-02, trained with patches of 14 pixels, start networks with 16.
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.models import eva, vision_transformer
from torch import Tensor

from videomt_ros.model import hub
from videomt_ros.model.backbone import TIMM_NAMES, timm_name
from videomt_ros.model.checkpoint import fit_tensors
from videomt_ros.model.config import VIT_SIZES, VidEoMTConfig
from videomt_ros.model.config_completion import Checkpoint
from videomt_ros.model.layouts import TIMM
from videomt_ros.model.weight_files import CheckpointError, read_weights

logger = logging.getLogger(__name__)


def load_vit(vit: Any, config: VidEoMTConfig, name: str, file: Path | None = None) -> None:
    """Load pretrained weights into the ViT of a network, as strictly as `load_model`.

    Args:
        vit: `backbone.vit` of a network of this configuration, on the CPU.
        config: configuration of the network.
        name: name of a model of timm, such as 'vit_small_patch14_reg4_dinov2'; a tag behind a
            point says which of its weights are meant.
        file: file with these weights, as timm or their authors publish them; None: downloaded,
            unless they are in the cache.

    Raises:
        ValueError: timm has no such model, or it is of another family or size than the network.
        CheckpointError: the weights are out of reach, damaged, or not those of this model; the
            message names every missing, unknown and misshapen key.
    """
    _check_design(config, name)
    about = _pretrained_record(name)
    mean, std = ([round(255 * value, 3) for value in values] for values in (about.mean, about.std))
    if mean != list(config.pixel_mean):
        logger.warning(
            '%s was trained on images normalised by mean %s and std %s; network.pixel_mean and '
            'network.pixel_std differ.',
            name, mean, std,
        )  # fmt: skip
    origin = str(file)
    if file is None:
        origin = f'{about.hf_hub_id} of the Hugging Face hub'
        try:
            file = hub.fetch_file(about.hf_hub_id, 'model.safetensors')
        except CheckpointError as error:
            raise CheckpointError(f'{error} A file goes in as timm:{name}:FILE.') from None
    elif not file.is_file():
        raise CheckpointError(f'{file}: expected the weights of {name}, there is no such file.')
    # Read here, because timm would run code that hides in a file.
    tensors = _convert(read_weights(file).tensors, vit, config.family, '_qkvb' in name)
    vit.load_state_dict(fit_tensors(Checkpoint(origin, name, tensors, TIMM), vit.state_dict()))
    logger.info('The ViT starts from %s, %s.', name, origin)


def _pretrained_record(name: str) -> Any:
    """Find where timm says that weights lie, and how the images of their training looked."""
    try:
        about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        about = None
    if about is None:
        known = timm.list_pretrained(f'{name.partition(".")[0]}.*')
        raise ValueError(f'Expected the name of weights of timm, got {name}. Try {known}.')
    return about


def _check_design(config: VidEoMTConfig, name: str) -> None:
    """Raise ValueError unless a model of timm is built like the backbone of a configuration."""
    own = timm_name(config)
    model = name.partition('.')[0]
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models())
        meant = f' Nearest: {", ".join(near)}.' if near else ''
        raise ValueError(
            f'Expected the name of a model of timm, which has no {model}.{meant} '
            f'The network is built like {own}.'
        )
    # Without the suffix the same model has no biases on q and v, which is to say zeros.
    fits = model in (own, own.removesuffix('_qkvb'))
    size = next((s for s in VIT_SIZES.values() if s['embed_dim'] == config.embed_dim), None)
    if config.embed_dim in TIMM_NAMES[config.family] and size:
        # The tensors of a wrong number of heads would fit.
        fits &= (config.depth, config.num_heads) == (size['depth'], size['num_heads'])
    if not fits:
        raise ValueError(
            f'Expected weights that fit the network, of family {config.family}, embed_dim '
            f'{config.embed_dim}, depth {config.depth} and num_heads {config.num_heads} (built '
            f'like {own}{f" with {size}" if size else ""}), got those of {name}. Choose others in '
            'init_from, or another network.'
        )


def _convert(
    tensors: dict[str, Tensor], vit: Any, family: str, has_biases: bool
) -> dict[str, Tensor]:
    """Convert tensors to the names and sizes of a ViT with timm's code, without a classifier."""
    module: Any = vision_transformer if family == 'dinov2' else eva
    found: dict[str, Tensor] = module.checkpoint_filter_fn(tensors, vit)
    found = {key: value for key, value in found.items() if not key.startswith('head.')}
    if 'norm.weight' not in found:
        # timm's EVA-02 pools before its final norm and calls it so; there is but one.
        found = {key.replace('fc_norm.', 'norm.'): value for key, value in found.items()}
    if has_biases:
        return found
    zeros = {
        key: value.new_zeros(value.shape)
        for key, value in vit.state_dict().items()
        if key.endswith(('.q_bias', '.v_bias'))
    }
    return zeros | found
