"""The kinds of data sets, each as one object that knows all that differs between them.

A new family is a module in this folder, see `families.family`, and a line in `FAMILIES`. Nothing
here needs torch.
"""

from __future__ import annotations

from videomt_ros.evaluation.families.family import Family
from videomt_ros.evaluation.families.instances import Instances
from videomt_ros.evaluation.families.panoptic import Panoptic
from videomt_ros.evaluation.families.semantic import Semantic
from videomt_ros.evaluation.figures import TRACKING_GROUP, Group

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Instances(),
        Panoptic(),
        Semantic(),
    )
}
"""All families by name."""


def family_of(name: str) -> Family:
    """Find the family that `Dataset.family` or a score file names.

    Raises:
        ValueError: there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f'Expected a family out of {", ".join(FAMILIES)}, got {name!r}.')
    return FAMILIES[name]


def figure_groups() -> list[Group]:
    """List the figures of all families, and those of tracking last, as tables group them."""
    return [*(family.group for family in FAMILIES.values()), TRACKING_GROUP]
