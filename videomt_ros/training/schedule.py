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


def masked_attention_probability(step: int, total_steps: int, until: float) -> float:
    """Chance that a query is held inside its mask: 1 at step 0, 0 from `until` of all steps on.

    EoMT (arXiv 2503.19108) fades masked attention out so that inference needs no masks, there
    with a polynomial and one query block after the other. Here all blocks fade together along a
    line: that is simpler, and was enough in a trial on the demo's scenes.

    >>> masked_attention_probability(30, 100, 0.6)
    0.5
    """
    if until <= 0:
        return 0.0
    return max(0.0, 1 - step / (until * total_steps))
