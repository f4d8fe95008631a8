"""The network that a run starts from, and the way its blocks run in training."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed
from torch import Tensor, nn

from videomt_ros.model import NetworkConfig, VideoNetwork, build_network, load_model
from videomt_ros.model.backbone import timm_name
from videomt_ros.model.checkpoint import load_vit
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.updater import start_updater

logger = logging.getLogger(__name__)

ROPE_RESCALE = 2.0
"""Largest factor by which DINOv3 scales its positions (`pos_embed_rescale`, arXiv 2508.10104)."""

TIMM = 'timm'
"""First part of an `init_from` that names a model of timm, or the one that fits the network."""

_POSITIONS = 'backbone.vit.pos_embed'
_SAME = (
    'architecture', 'family', 'embed_dim', 'depth', 'num_heads', 'patch_size', 'num_query_blocks',
    'num_queries',
)  # fmt: skip
"""Fields in which initial weights must agree with the network. The number of queries is one of
them, since the queries hold much of what was learnt and a different number would be new."""
_SAME_DECODER = ('taps', 'decoder_mlp_ratio')
"""Fields in which networks of the architecture pmt must agree as well."""
_UNTOLD = ('num_heads', 'num_query_blocks', 'norm_queries', 'task', 'test_size')
"""Fields that the tensors of a file may not determine; then those of the run are taken."""


def load_initial(settings: TrainSettings) -> VideoNetwork:
    """Build the network of a run with the weights it starts from.

    With `init_from` null all weights are new; with 'timm' all but those of the ViT; with anything
    that `load_model` takes, those of the class head if the classes differ and of the query updater
    if the propagation differs. New weights depend only on the seed.

    Returns:
        The network on the CPU in float32, in training mode.

    Raises:
        ValueError: the weights belong to a network of another design; names the differences.
        CheckpointError: the weights cannot be found or read, or do not match their network.
    """
    torch.manual_seed(settings.seed)
    net = build_network(settings.network)
    source = settings.init_from
    if source is None:
        if net.encoder_is_frozen:
            logger.warning(
                'The encoder has random weights and stays as it is, so that little can be learnt. '
                'Set init_from=timm, or to a model of the same kind.'
            )
        start_from_scratch(net)
        return net.train()
    start_updater(net)
    kind, _, rest = source.partition(':')
    if kind == TIMM:
        name, _, file = rest.partition(':')
        load_vit(
            net.backbone.vit,
            net.config,
            name or timm_name(net.config),
            Path(file).expanduser() if file else None,
        )
    else:
        untold = {name: getattr(net.config, name) for name in _UNTOLD}
        # Image models have no query updater, and their file may not name the propagation.
        _take_weights(net, load_model(source, untold | {'propagation': 'none'}), source)
    return net.train()


def configure_blocks(net: VideoNetwork, settings: TrainSettings) -> None:
    """Configure the blocks of a network for training; its weights keep their names.

    Sets activation checkpointing and compilation as the settings say. The scale of DINOv3's rotary
    positions is drawn for each batch, log-uniform in 1/2..2, as in its own training and in that of
    the released models: in the ViT, though it may be frozen, and in the decoder of PMT, which has
    such positions with any ViT.
    """
    ropes = [net.rotary] if net.config.architecture == 'pmt' else []
    if net.config.family == 'dinov3':
        ropes.append(net.backbone.vit.rope)
    for rope in ropes:
        rope.rescale_coords = ROPE_RESCALE
        rope.aug_active = True  # used in training mode only
    net.backbone.checkpointing = settings.activation_checkpointing
    if settings.compile:
        own = net.query_blocks if net.config.architecture == 'pmt' else []
        for block in (*net.backbone.vit.blocks, *own):
            # Dynamic, since clips have more sizes than torch keeps compiled programs.
            block.compile(dynamic=True)


def start_from_scratch(net: VideoNetwork) -> None:
    """Initialise what usually comes with a pretrained backbone.

    DINOv2 starts its layer scales at 1e-5, with which blocks have no effect for thousands of
    steps; here they are 1. The position table has sines and cosines (Beyer et al., arXiv
    2205.01580), which tell neighbouring patches, whereas a random table has to learn them.
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
    start_updater(net)


def _take_weights(net: VideoNetwork, source: VideoNetwork, name: str) -> None:
    """Copy the weights of another network, except for parts that do not fit."""
    ours, theirs = net.config, source.config
    _check_fit(ours, theirs, name)
    for field in ('pixel_mean', 'pixel_std'):
        if getattr(ours, field) != getattr(theirs, field):
            logger.warning(
                '%s was trained with %s %s, the network has %s.',
                name, field, getattr(theirs, field), getattr(ours, field),
            )  # fmt: skip
    weights = source.state_dict()
    new = []
    if ours.class_names != theirs.class_names:
        new.append('class_head.')
        unseen = [label for label in ours.class_names if label not in theirs.class_names]
        logger.info(
            'The class head is new: %s knows %d classes, the network %d; new among them: %s.',
            name, theirs.num_classes, ours.num_classes, ', '.join(unseen) or 'none, but the order',
        )  # fmt: skip
    handed_on = [(config.propagation, config.norm_queries) for config in (ours, theirs)]
    if theirs.propagation != ours.propagation or (
        hasattr(net, 'query_updater') and handed_on[0] != handed_on[1]
    ):
        new.append('query_updater.')
        logger.info(
            'What hands queries on is new: propagation %s%s in %s, %s%s in the network.',
            theirs.propagation, ' after the norm' if theirs.norm_queries else '', name,
            ours.propagation, ' after the norm' if ours.norm_queries else '',
        )  # fmt: skip
    weights = {k: v for k, v in weights.items() if not k.startswith(tuple(new))}
    if _POSITIONS in weights:
        weights[_POSITIONS] = _resized(weights[_POSITIONS], net, name)
    expected = net.state_dict()
    kept = {key: value for key, value in expected.items() if key.startswith(tuple(new))}
    net.load_state_dict(weights | kept)


def _check_fit(ours: NetworkConfig, theirs: NetworkConfig, name: str) -> None:
    same = (*_SAME, *(_SAME_DECODER if ours.architecture == theirs.architecture == 'pmt' else ()))
    differing = [field for field in same if getattr(ours, field) != getattr(theirs, field)]
    # EVA-02 ignores mlp_ratio. Ratios that are computed from tensors may be rounded.
    if ours.family != 'eva02' and not math.isclose(ours.mlp_ratio, theirs.mlp_ratio):
        differing.append('mlp_ratio')
    if differing:
        expected, got = (
            ', '.join(f'{field} {getattr(config, field)}' for field in differing)
            for config in (ours, theirs)
        )
        raise ValueError(
            f'Expected weights in init_from of a network like that of the run, with {expected}; '
            f'{name} has {got}. Choose other weights, or set these fields of network.'
        )


def _resized(table: Tensor, net: VideoNetwork, name: str) -> Tensor:
    """Resample a position table (1, P, C) to the size of the network's table."""
    vit = net.backbone.vit
    if table.shape == vit.pos_embed.shape:
        return table
    # DINOv2 with registers has positions for patches only, EVA-02 for its class token too.
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    old, new = (math.isqrt(each.shape[1] - prefix) for each in (table, vit.pos_embed))
    logger.info('The table of positions of %s, %d x %d, is resampled to %d x %d.',
                name, old, old, new, new)  # fmt: skip
    return resample_abs_pos_embed(table, [new, new], [old, old], num_prefix_tokens=prefix)
