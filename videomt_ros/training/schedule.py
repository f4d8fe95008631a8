"""What changes with the step: learning rate and masked attention."""

from __future__ import annotations


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
