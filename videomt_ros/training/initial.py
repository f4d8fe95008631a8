"""The network that a run starts from, and how its blocks run while it learns."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed
from torch import Tensor, nn

from videomt_ros.model import VidEoMT, VidEoMTConfig, load_model
from videomt_ros.model.checkpoint import load_vit
from videomt_ros.training.run_settings import TrainSettings

logger = logging.getLogger(__name__)

UPDATER_GAIN = 0.3
"""Share of a query that a new linear updater hands on to the next frame."""

KEEP_BIAS = 8.0
"""Of the update gate of a new GRU: it keeps sigmoid(8) = 0.9997 of its state."""

ROPE_RESCALE = 2.0
"""`pos_embed_rescale` of DINOv3 (arXiv 2508.10104)."""

TIMM = 'timm:'
"""Start of an `init_from` that names a model of timm."""

_POSITIONS = 'backbone.vit.pos_embed'
_SAME = (
    'family', 'embed_dim', 'depth', 'num_heads', 'patch_size', 'num_query_blocks', 'num_queries',
)  # fmt: skip
"""In what weights must agree with the network. The number of queries is among them because they
hold much of what was learnt: fewer or more would have to start anew."""
_UNTOLD = ('num_heads', 'num_query_blocks', 'norm_queries', 'task', 'test_size')
"""What the tensors of a file may leave open; then it is as the run's network has it."""


def load_initial(settings: TrainSettings) -> VidEoMT:
    """Build the network of a run with the weights it starts from.

    With `init_from` null all of it is new; with 'timm:NAME' or 'timm:NAME:FILE' all but the ViT;
    with whatever `load_model` takes, the class head where the classes differ and the updater of
    the queries where the propagation does. What is new depends on the seed alone.

    Returns:
        The network on the CPU in float32, in training mode.

    Raises:
        ValueError: the weights are those of a network of another design; names what differs.
        CheckpointError: they can't be found or read, or are not what they should be.
    """
    torch.manual_seed(settings.seed)
    net = VidEoMT(settings.network)
    source = settings.init_from
    if source is None:
        start_from_scratch(net)
        return net.train()
    start_updater(net)
    if source.startswith(TIMM):
        name, _, file = source.removeprefix(TIMM).partition(':')
        load_vit(net.backbone.vit, net.config, name, Path(file).expanduser() if file else None)
    else:
        untold = {name: getattr(net.config, name) for name in _UNTOLD}
        # A file without an updater is that of an image model.
        _take_weights(net, load_model(source, untold | {'propagation': 'none'}), source)
    return net.train()


def prepare(net: VidEoMT, settings: TrainSettings) -> None:
    """Have a network run as it is to while it learns; its weights keep their names.

    That is as `activation_checkpointing` and `compile` say, and with the scale of DINOv3's rotary
    positions drawn anew for each batch, log-uniform in 1/2..2, as in its own training and in that
    of the released models.
    """
    if net.config.family == 'dinov3':
        net.backbone.vit.rope.rescale_coords = ROPE_RESCALE
        net.backbone.vit.rope.aug_active = True  # read in training alone
    net.backbone.checkpointing = settings.activation_checkpointing
    if settings.compile:
        for block in net.backbone.vit.blocks:
            # Clips differ in size: a program for each would soon be more than torch keeps.
            block.compile(dynamic=True)


def start_from_scratch(net: VidEoMT) -> None:
    """Set what a pretrained backbone would bring otherwise.

    DINOv2 starts its layer scales at 1e-5, which lets nothing through for thousands of steps. A
    random table of positions has to learn which patches are neighbours; one of sines and cosines
    (Beyer et al., arXiv 2205.01580) knows.
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


@torch.no_grad()
def start_updater(net: VidEoMT) -> None:
    """Have a new updater hand queries on much as they are, rather than scrambled."""
    channels = net.config.embed_dim
    if net.config.propagation == 'fusion':
        # Below 1, or the state grows without bound: blocks add to the queries that pass, so the
        # next state is gain * (state + change) + q. Demo networks trained from a gain of 1 had a
        # state of norm 71 after 2 frames, 1e4 after 20 and 4e8 after 60, and found 17 % of the
        # objects over 60 frames; from 0.3 the norm stays at 22, and 94 % are found.
        assert isinstance(net.query_updater, nn.Linear)
        net.query_updater.weight.copy_(UPDATER_GAIN * torch.eye(channels))
        net.query_updater.bias.zero_()
    elif net.config.propagation == 'gru':
        # h <- z h + (1 - z) tanh(o), with z near 1: it starts as a model that hands nothing on,
        # and learns what to. Unlike fusion a GRU does not bring q back with each frame, and the
        # query blocks know queries by what they were in the image model: with z = 0.73 and
        # tanh(0.3 o) nothing of q was left after a few frames. After runs of
        # config/train_hidden.yaml, live IDF1 was 36.4 for that z, 46.0 for z = 0.993 and 55.7
        # for this one, one run each. The reset gate, which has nothing to reset, stays as drawn.
        assert isinstance(net.query_updater, nn.GRUCell)
        cell = net.query_updater  # its rows: reset gate, update gate, candidate
        for weight in (cell.weight_ih, cell.weight_hh):
            weight[channels:] = 0
        cell.weight_ih[2 * channels :] = torch.eye(channels)
        cell.bias_ih[channels:] = 0
        cell.bias_hh[channels:] = 0
        cell.bias_ih[channels : 2 * channels] = KEEP_BIAS


def _take_weights(net: VidEoMT, source: VidEoMT, name: str) -> None:
    """Give a network the weights of another, but for what must be new."""
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


def _check_fit(ours: VidEoMTConfig, theirs: VidEoMTConfig, name: str) -> None:
    differing = [field for field in _SAME if getattr(ours, field) != getattr(theirs, field)]
    # EVA-02 has a ratio of its own, whatever is said; and a ratio may be read off a file.
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


def _resized(table: Tensor, net: VidEoMT, name: str) -> Tensor:
    """A table of positions (1, P, C) at the size that the network has."""
    vit = net.backbone.vit
    if table.shape == vit.pos_embed.shape:
        return table
    # DINOv2 with registers has positions for patches alone, EVA-02 for its class token too.
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    old, new = (math.isqrt(each.shape[1] - prefix) for each in (table, vit.pos_embed))
    logger.info('The table of positions of %s, %d x %d, is resampled to %d x %d.',
                name, old, old, new, new)  # fmt: skip
    return resample_abs_pos_embed(table, [new, new], [old, old], num_prefix_tokens=prefix)
