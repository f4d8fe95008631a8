"""The kinds of data sets, each as one object that knows all that differs between them.

A new family is a module in this folder, see `families.family`, and a line in `FAMILIES`. Nothing
here needs torch.
"""

from __future__ import annotations

from videomt_ros.evaluation.families.family import Family
from videomt_ros.evaluation.families.instances import Instances
from videomt_ros.evaluation.families.panoptic import Panoptic, PanopticImages
from videomt_ros.evaluation.families.semantic import Semantic

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Instances(),
        Panoptic(),
        PanopticImages(),
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
