"""Figures of tracking, what each means in one line, and how the values of figures are shown.

The figures that one family alone has, and their meanings, are the `group` of that family, in its
module in `families`. Formulas are documented in `metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

Figures = dict[str, float | None]
"""Values by name: fractions of 1, and counts; None where a figure is undefined."""

COUNTS = ('IDSW', 'Frag', 'MT', 'ML', 'Merges')
"""Figures that are counts; all others are fractions."""
TRACKING = ('IDF1', 'HOTA', 'DetA', 'AssA', *COUNTS)
"""Figures of tracking, in the order in which score files list them."""


@dataclass(frozen=True)
class Group:
    """Figures that stand together in a table."""

    title: str
    meanings: dict[str, str]
    """The meaning of each figure by its name, in the order of the table."""


TRACKING_GROUP = Group(
    'Tracking',
    {
        'HOTA': 'Higher order tracking accuracy: finding and following, balanced.',
        'DetA': 'Its share from finding objects in each frame.',
        'AssA': 'Its share from keeping their identities.',
        'IDF1': 'Share of objects and tracks that pair up under one lasting identity.',
        'IDSW': 'Identity switches: an object goes on under another track.',
        'Frag': 'Fragmentations: an object is lost for a while and found again.',
        'MT': 'Objects followed in more than 80 % of their life.',
        'ML': 'Objects followed in less than 20 % of it.',
        'Merges': 'Wrong merges: a track that was lost goes on with another object.',
    },
)


def as_text(figure: str, value: float | None) -> str:
    """Format a value for a table: a count as it is, a fraction in percent with one decimal."""
    if value is None:
        return '–'
    return f'{value:.0f}' if figure in COUNTS else f'{100 * value:.1f}'
