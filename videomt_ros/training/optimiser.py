"""AdamW with a learning rate per depth of the backbone, and the schedules of a run.

Layer-wise decay of the learning rate: the lowest layers of a pretrained ViT are the most general
and change the least. Of D blocks, block i has the factor `layer_decay ** (D - 1 - i)`, the
embedding that of block 0, and all other parameters 1, as in EoMT and VidEoMT (0.6). BEiT, which
introduced it (arXiv 2106.08254), has one more power in each block and two in the embedding.
Depths:

- depth 0: patch embedding, position table, class token and registers;
- depth i + 1: block i;
- depth D + 1: the final norm and all parameters outside the ViT.

Frozen parameters are in no group. In PMT these are all parameters of the ViT, so that layer-wise
decay changes nothing: the decoder has the full rate throughout, as in the released code, whose
optimiser gives every trained parameter the same rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from videomt_ros.model import VideoNetwork

VIT = 'backbone.vit.'
"""Prefix of the parameters of the ViT, which have timm's names after it."""
EMBEDDING = ('patch_embed.', 'pos_embed', 'cls_token', 'reg_token')
"""Prefixes of the parameters in front of the first block, in all families of timm."""
MASK_POWER = 0.9
"""Power of the decay of masked attention in EoMT."""


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int, power: float) -> float:
    """Compute the factor of the learning rate at a step: linear rise, then polynomial decay.

    >>> learning_rate_factor(5, 10, 110, 1.0)
    0.5
    >>> learning_rate_factor(60, 10, 110, 1.0)
    0.5
    """
    if step < warmup_steps:
        return step / warmup_steps
    left = (total_steps - step) / max(1, total_steps - warmup_steps)
    return max(0.0, left) ** power


def learning_rate_factors(
    step: int, warmup_steps: int, vit_warmup_steps: int | None, total_steps: int, power: float
) -> dict[str, float]:
    """Compute the factors of the learning rate at a step for the ViT and for new parameters.

    Two-stage warm-up (EoMT, arXiv 2503.19108): the ViT is frozen while the rate of new parameters
    rises, so that their first gradients, which are random, do not disturb it. Then its rate rises,
    and decays to 0 at the same last step.

    Args:
        step: step of the optimiser, from 0.
        warmup_steps: number of steps over which the rate of new parameters rises.
        vit_warmup_steps: number of steps over which the rate of the ViT rises after that; None: it
            rises with the other.
        total_steps: number of steps of the run.
        power: power of the decay.

    Returns:
        Factors in 0..1 by part, `vit` and `new`.

    >>> learning_rate_factors(9, 10, 20, 110, 1.0)
    {'vit': 0.0, 'new': 0.9}
    >>> learning_rate_factors(20, 10, 20, 110, 1.0)
    {'vit': 0.5, 'new': 0.9}
    """
    new = learning_rate_factor(step, warmup_steps, total_steps, power)
    if vit_warmup_steps is None:
        return {'vit': new, 'new': new}
    vit = 0.0
    if step >= warmup_steps:
        vit = learning_rate_factor(
            step - warmup_steps, vit_warmup_steps, total_steps - warmup_steps, power
        )
    return {'vit': vit, 'new': new}


def masked_attention_probabilities(
    step: int, total_steps: int, until: float, num_blocks: int, in_turn: bool = False
) -> list[float]:
    """Compute for each query block the probability that a query attends only inside its mask.

    Masked attention is annealed from 1 to 0 so that inference needs no masks, in one of two ways:

    - all blocks together and linearly until `until` of all steps, which is simpler and was enough
      in a trial on the demo's scenes;
    - `in_turn`, as EoMT trains image models (arXiv 2503.19108): the steps until `until` are cut in
      5 equal parts. In the first part all blocks have 1. Each block falls to 0 over the length of
      a part, along (1 - progress)^0.9; the first block starts with the second part, the last block
      ends with the last part, and the others are spaced evenly between. EoMT ends at 5/6. In its
      88,692 steps on COCO, 4 blocks start at 14,782, 29,564, 44,346 and 59,128, and 3 blocks at
      14,782, 36,955 and 59,128 (configs/dinov2/coco/panoptic/eomt_large_640.yaml and
      eomt_base_640.yaml, in the copy of its repository at qinhy/eomt on GitHub).

    >>> masked_attention_probabilities(30, 100, 0.6, 2)
    [0.5, 0.5]
    >>> masked_attention_probabilities(20, 50, 1.0, 2, in_turn=True)
    [0.0, 1.0]
    """
    end = until * total_steps
    if step >= end:
        return [0.0] * num_blocks
    if not in_turn:
        return [1 - step / end] * num_blocks
    progress = step / end * 5  # in parts
    distance = 3 / max(1, num_blocks - 1)  # between the starts of neighbouring blocks, in parts
    begins = (4 - distance * (num_blocks - 1 - i) for i in range(num_blocks))
    return [(1 - min(1.0, max(0.0, progress - begin))) ** MASK_POWER for begin in begins]


def depth_of(name: str, num_blocks: int) -> int:
    """Find the depth of a parameter, 0..num_blocks + 1.

    Args:
        name: name of the parameter in `VideoNetwork.named_parameters`.
        num_blocks: number of blocks with the query blocks, D.

    Raises:
        ValueError: the parameter belongs to an unknown part of the ViT.
    """
    if not name.startswith(VIT):
        return num_blocks + 1
    name = name.removeprefix(VIT)
    if name.startswith('norm.'):
        return num_blocks + 1
    if name.startswith('blocks.'):
        return int(name.split('.')[1]) + 1
    if name.startswith(EMBEDDING):
        return 0
    raise ValueError(
        'Expected a parameter of the patch embedding, of a block or of the final norm, '
        f'got {VIT}{name}. '
        'Say in EMBEDDING or depth_of how deep it lies.'
    )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter decays: matrices and the position table do, but not the queries."""
    return parameter.ndim > 1 and name != 'q.weight' and not name.endswith('_token')


def parameter_groups(
    net: VideoNetwork, weight_decay: float, layer_decay: float = 1.0, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Group the parameters that are trained by depth and weight decay, in the order of depth.

    Args:
        net: network without a wrapper, since depths are read from the names of parameters.
        weight_decay: weight decay of the parameters that decay.
        layer_decay: factor of the learning rate from a depth to the depth below; 1: no decay.
        decay_all: whether all parameters decay; see `decays`.

    Returns:
        Groups for an optimiser with `params`, `weight_decay`, `name`, `part` ('vit' or 'new', see
        `learning_rate_factors`) and `lr_factor`.

    Raises:
        ValueError: a parameter of the ViT has no depth.
    """
    num_blocks = len(net.backbone.vit.blocks)
    groups: dict[tuple[int, str, bool], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depth_of(name, num_blocks)
        part = 'vit' if name.startswith(VIT) else 'new'
        decayed = decay_all or decays(name, parameter)
        group = groups.setdefault(
            (depth, part, decayed),
            {
                'name': f'{_place(depth, part, num_blocks)}{"" if decayed else ", no decay"}',
                'part': part,
                'params': [],
                'lr_factor': layer_decay ** max(0, num_blocks - max(depth, 1)),
                'weight_decay': weight_decay if decayed else 0.0,
            },
        )
        group['params'].append(parameter)
    # In each depth the ViT comes before new parameters, and those that decay come first.
    order = sorted(groups, key=lambda key: (key[0], key[1] == 'new', not key[2]))
    ordered = [groups[key] for key in order]
    check_groups(net, ordered)
    return ordered


def _place(depth: int, part: str, num_blocks: int) -> str:
    if part == 'new':
        return 'new'
    if depth == 0:
        return 'vit embedding'
    return 'vit norm' if depth > num_blocks else f'vit block {depth - 1}'


def check_groups(net: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Check that each parameter of a network that is trained is in exactly one group.

    Raises:
        ValueError: it is not, or a group holds a parameter of another network; names them all.
    """
    count = Counter(id(parameter) for group in groups for parameter in group['params'])
    names = {id(each): name for name, each in net.named_parameters() if each.requires_grad}
    wrong = [f'{name} in {count[key]}' for key, name in names.items() if count[key] != 1]
    strangers = len(count.keys() - names.keys())
    if strangers:
        wrong.append(f'{strangers} of another network')
    if wrong:
        raise ValueError(f'Expected each parameter in one group, got {", ".join(wrong)}.')


def group_table(groups: Sequence[dict[str, Any]]) -> str:
    """Format groups as a table: name, number of parameters, learning-rate factor, weight decay."""
    rows = [('group', 'parameters', 'lr factor', 'weight decay')]
    for group in groups:
        size = sum(parameter.numel() for parameter in group['params'])
        factor, decay = f'{group["lr_factor"]:.4g}', f'{group["weight_decay"]:g}'
        rows.append((group['name'], f'{size:,}', factor, decay))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def set_learning_rates(
    optimizer: torch.optim.Optimizer, learning_rate: float, factors: dict[str, float]
) -> None:
    """Set the learning rate of each group: base rate times the factors of its depth and part.

    Args:
        optimizer: optimiser with groups of `parameter_groups`.
        learning_rate: base learning rate.
        factors: factors by part from `learning_rate_factors`.
    """
    for group in optimizer.param_groups:
        group['lr'] = learning_rate * group['lr_factor'] * factors[group['part']]
