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


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int, power: float) -> float:
    """Factor of the base learning rate at a step, 0..1: linear rise, then polynomial decay.

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
    """Factors of the base learning rate at a step for the pretrained ViT and for what is new.

    Two-stage warm-up (EoMT, arXiv 2503.19108): while new parameters rise the ViT rests, so that
    their first, random gradients do not spoil it. Then it rises, and from there decays to 0 at the
    same last step.

    Args:
        step: of the optimiser, from 0.
        warmup_steps: over which what is new rises.
        vit_warmup_steps: over which the ViT rises after that; None: it rises with the rest.
        total_steps: of the run.
        power: of the decay.

    Returns:
        Factors by part: `vit` and `new`.

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


MASK_POWER = 0.9
"""Of EoMT's decay of masked attention."""


def masked_attention_probabilities(
    step: int, total_steps: int, until: float, num_blocks: int, in_turn: bool = False
) -> list[float]:
    """Chance in each query block that a query is held inside its mask, 1 at step 0.

    Masked attention fades out so that inference needs no masks. Two ways to it:

    - all blocks together, along a line that ends at `until` of all steps: simpler, and enough in a
      trial on the demo's scenes;
    - `in_turn`, as EoMT trains image models (arXiv 2503.19108): `until` of all steps is cut in 5
      equal parts. In the first all blocks have 1. Each block takes a fifth to go to 0, the
      earliest block first, along (1 - progress)^0.9; the first begins after the first part, the
      last ends with the last, and the others lie evenly between. Its runs end at 5/6. Of 88,692
      steps on COCO 4 blocks begin at 14,782, 29,564, 44,346 and 59,128; 3 blocks at 14,782, 36,955
      and 59,128, with pauses (configs/dinov2/coco/panoptic/eomt_large_640.yaml and
      eomt_base_640.yaml, as a copy of its repository, qinhy/eomt on GitHub, has them).

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
    gone = step / end * 5  # parts
    distance = 3 / max(1, num_blocks - 1)  # from the begin of a block's part to that of the next
    begins = (4 - distance * (num_blocks - 1 - i) for i in range(num_blocks))
    return [(1 - min(1.0, max(0.0, gone - begin))) ** MASK_POWER for begin in begins]


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
