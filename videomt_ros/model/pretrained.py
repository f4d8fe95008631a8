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
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.presets import SIZES
from videomt_ros.model.weight_files import CheckpointError, read_tensors

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


def load_vit(vit: Any, config: VidEoMTConfig, name: str, file: Path | None = None) -> None:
    """Load pretrained weights into the ViT of a network, all of them.

    Args:
        vit: `backbone.vit` of a network of this configuration, on the CPU.
        config: of the network.
        name: of a model of timm, such as 'vit_small_patch14_reg4_dinov2', also with a tag behind a
            point that says which of its weights.
        file: with these weights, as timm or their authors publish them; None: downloaded, unless
            they are in the cache.

    Raises:
        ValueError: timm has no such model, or it is of another family or size than the network.
        CheckpointError: the weights are out of reach, damaged, or not those of this model.
    """
    _check_design(config, name)
    try:
        about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        about = None
    if about is None:
        known = timm.list_pretrained(f'{name.partition(".")[0]}.*')
        raise ValueError(f'Expected the name of weights of timm, got {name}. Try {known}.')
    if [round(255 * value, 3) for value in about.mean] != list(config.pixel_mean):
        logger.warning(
            '%s was trained on images normalised by mean %s and std %s; network.pixel_mean and '
            'network.pixel_std differ.',
            name,
            [round(255 * value, 3) for value in about.mean],
            [round(255 * value, 3) for value in about.std],
        )
    if file is None:
        place = f'{about.hf_hub_id} of the Hugging Face hub'
        try:
            file = hub.fetch_file(about.hf_hub_id, 'model.safetensors')
        except CheckpointError as error:
            raise CheckpointError(f'{error} A file goes in as timm:{name}:FILE.') from None
    else:
        place = str(file)
        if not file.is_file():
            raise CheckpointError(
                f'{file}: expected the weights of {name}, there is no such file.'
            )
    # Read here, because timm would run code that hides in a file.
    tensors, _ = read_tensors(file)
    vit.load_state_dict(_converted(tensors, vit, config.family, place, '_qkvb' in name))
    logger.info('The ViT starts from %s, %s.', name, place)


def _check_design(config: VidEoMTConfig, name: str) -> None:
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
    size = next((s for s in SIZES.values() if s['embed_dim'] == config.embed_dim), None)
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


def _converted(tensors: Tensors, vit: Any, family: str, place: str, has_biases: bool) -> Tensors:
    """The conversion of timm, with a strict look at what comes out."""
    module: Any = vision_transformer if family == 'dinov2' else eva
    found: Tensors = module.checkpoint_filter_fn(tensors, vit)
    found = {key: value for key, value in found.items() if not key.startswith('head.')}
    if 'norm.weight' not in found:
        # timm's EVA-02 pools before its final norm and calls it so; there is but one.
        found = {key.replace('fc_norm.', 'norm.'): value for key, value in found.items()}
    expected = vit.state_dict()
    if not has_biases:
        zeros = {k: v for k, v in expected.items() if k.endswith(('.q_bias', '.v_bias'))}
        found = {key: value.new_zeros(value.shape) for key, value in zeros.items()} | found
    faults = [
        *(f'{key} is missing' for key in expected.keys() - found.keys()),
        *(f'{key} is unknown' for key in found.keys() - expected.keys()),
        *(
            f'{key} is {list(found[key].shape)} and not {list(expected[key].shape)}'
            for key in expected.keys() & found.keys()
            if found[key].shape != expected[key].shape
        ),
    ]
    if faults:
        raise CheckpointError(
            f'{place}: expected weights that fit the ViT of the network, '
            f'but {", ".join(sorted(faults))}.'
        )
    return found
