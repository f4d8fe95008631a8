"""AdamW with a learning rate for each depth of the backbone.

Layer-wise decay: what a pretrained ViT learnt first is the most general and moves the least. Of D
blocks, block i has the factor `layer_decay ** (D - 1 - i)`, the embedding that of block 0, and all
else 1, as EoMT and VidEoMT (0.6) have it. BEiT, where it comes from (arXiv 2106.08254), has one
power more in each block, and two in the embedding. Depths:

- depth 0: patch embedding, table of positions, class token and registers;
- depth i + 1: block i;
- depth D + 1: the final norm and all that is not of the ViT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from videomt_ros.model import VidEoMT

VIT = 'backbone.vit.'
"""Where a network holds its ViT, under timm's names."""
EMBEDDING = ('patch_embed.', 'pos_embed', 'cls_token', 'reg_token')
"""What timm's families have in front of their first block."""


def depth_of(name: str, num_blocks: int) -> int:
    """Depth of a parameter, 0..num_blocks + 1.

    Args:
        name: as `VidEoMT.named_parameters` gives it.
        num_blocks: D, with the query blocks.

    Raises:
        ValueError: it is of the ViT, but of no part that is known.
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
    """Matrices and the table of positions decay; vectors, prefix tokens and the queries do not."""
    return parameter.ndim > 1 and name != 'q.weight' and not name.endswith('_token')


def parameter_groups(
    net: VidEoMT, weight_decay: float, layer_decay: float = 1.0, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Parameters by depth and weight decay, in the order of depth.

    Args:
        net: not wrapped: depths are read from the names of its parameters.
        weight_decay: of what decays.
        layer_decay: factor of the learning rate from one depth to the one below; 1: all equal.
        decay_all: norms, biases, layer scales, prefix tokens and queries decay as well.

    Returns:
        Groups for an optimiser: `params`, `weight_decay`, and to be kept with them `name`,
        `part` ('vit' or 'new', see `schedule.learning_rate_factors`) and `lr_factor`.

    Raises:
        ValueError: a parameter of the ViT has no depth.
    """
    num_blocks = len(net.backbone.vit.blocks)
    groups: dict[tuple[int, str, bool], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
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
    # ViT before new, decayed before free.
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
    """Check that each parameter of a network is in one group.

    Raises:
        ValueError: one is in none or in several, or a group holds a stranger; names them all.
    """
    count = Counter(id(parameter) for group in groups for parameter in group['params'])
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    wrong = [f'{name} in {count[key]}' for key, name in names.items() if count[key] != 1]
    strangers = len(count.keys() - names.keys())
    if strangers:
        wrong.append(f'{strangers} of another network')
    if wrong:
        raise ValueError(f'Expected each parameter in one group, got {", ".join(wrong)}.')


def group_table(groups: Sequence[dict[str, Any]]) -> str:
    """Groups as lines of text: name, number of parameters, factor of the rate, weight decay."""
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
    """Set the rate of each group: base rate, times its depth's factor, times its part's.

    Args:
        optimizer: over groups of `parameter_groups`.
        learning_rate: base rate.
        factors: by part, from `schedule.learning_rate_factors`.
    """
    for group in optimizer.param_groups:
        group['lr'] = learning_rate * group['lr_factor'] * factors[group['part']]
