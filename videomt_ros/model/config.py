"""What a VidEoMT network is made of: one typed record that a checkpoint carries with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Family = Literal['dinov2', 'dinov3', 'eva02']
Propagation = Literal['none', 'query', 'fusion', 'gru']
Task = Literal['instance', 'panoptic', 'semantic']

_POSITIVE = (
    'num_classes',
    'embed_dim',
    'depth',
    'num_heads',
    'patch_size',
    'table_size',
    'test_size',
    'size_divisor',
)
_TYPES: tuple[tuple[str, type, str], ...] = (
    *((name, int, 'a whole number') for name in (*_POSITIVE, 'num_queries', 'num_query_blocks')),
    *((name, str, 'a text') for name in ('family', 'propagation', 'task', 'name')),
    ('norm_queries', bool, 'true or false'),
)
_LISTS = ('pixel_mean', 'pixel_std', 'class_names', 'thing_classes')


@dataclass(frozen=True)
class VidEoMTConfig:
    """Sizes and settings of one network; every field is checked when the record is built."""

    num_classes: int
    """K. The class head has one more output, the last: no object."""
    family: Family = 'dinov2'
    """Backbone family; see `videomt_ros.model.backbone`."""
    embed_dim: int = 384
    """C, the width of a token. 384, 768, 1024 for ViT-S, B, L."""
    depth: int = 12
    """Blocks in all, D. 12, 12, 24 for ViT-S, B, L."""
    num_heads: int = 6
    """Attention heads. 6, 12, 16 for ViT-S, B, L."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over `embed_dim`."""
    patch_size: int = 16
    table_size: int = 640
    """Image side for which the position table holds one entry per patch. Other inputs resample
    it bicubically. Not used by DINOv3, which has rotary positions alone."""
    num_queries: int = 200
    """Q."""
    num_query_blocks: int = 3
    """L2, the last blocks, in which queries join the patch tokens. 3, 3, 4 for ViT-S, B, L."""
    propagation: Propagation = 'fusion'
    """What enters the next frame: see `videomt_ros.model.network.VidEoMT`."""
    norm_queries: bool = False
    """Propagate queries after the final norm (the DINOv3 VIPSeg and VSPW models), not before."""
    task: Task = 'instance'
    """What the network was trained for."""
    test_size: int = 448
    """Short side of the network's input in pixels, aspect kept."""
    size_divisor: int = 32
    """The input is padded right and bottom to a multiple of this; a multiple of the patch."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Of ImageNet, RGB, on the scale 0..255."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    class_names: tuple[str, ...] = ()
    """K names in the head's order."""
    thing_classes: tuple[bool, ...] = ()
    """K flags in the head's order: True for things, False for stuff."""
    name: str = ''
    """Name of the checkpoint, as messages and reports show it."""

    def __post_init__(self) -> None:
        for name, kind, what in _TYPES:
            value = getattr(self, name)
            # Exactly these types: True is no number of blocks, and 3.0 is no number of classes.
            if type(value) is not kind:
                raise ValueError(f'Expected {name} to be {what}, got {value!r}.')
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(f'Expected {name} to be a list, got {value!r}.')
            object.__setattr__(self, name, tuple(value))
        self._check_choices()
        self._check_sizes()
        self._check_pixels()
        if not self.class_names:
            names = tuple(f'class_{i}' for i in range(self.num_classes))
            object.__setattr__(self, 'class_names', names)
        if not self.thing_classes:
            object.__setattr__(self, 'thing_classes', (True,) * self.num_classes)
        self._check_classes()

    def _check_choices(self) -> None:
        for name, choices in (('family', Family), ('propagation', Propagation), ('task', Task)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f'Expected {name} to be one of {", ".join(get_args(choices))}, '
                    f'got {getattr(self, name)!r}.'
                )

    def _check_sizes(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f'Expected {name} to be at least 1, got {getattr(self, name)}.')
        if not _is_number(self.mlp_ratio) or self.mlp_ratio <= 0:
            raise ValueError(f'Expected mlp_ratio to be a number above 0, got {self.mlp_ratio!r}.')
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f'Expected embed_dim to be a multiple of num_heads, '
                f'got {self.embed_dim} and {self.num_heads}.'
            )
        if not 1 <= self.num_query_blocks <= self.depth:
            raise ValueError(
                f'Expected num_query_blocks from 1 to depth = {self.depth}, '
                f'got {self.num_query_blocks}.'
            )
        if self.num_queries < 0:
            raise ValueError(f'Expected num_queries to be 0 or more, got {self.num_queries}.')
        for name in ('table_size', 'size_divisor'):
            if getattr(self, name) % self.patch_size:
                raise ValueError(
                    f'Expected {name} to be a multiple of the patch size {self.patch_size}, '
                    f'got {getattr(self, name)}.'
                )

    def _check_pixels(self) -> None:
        for name in ('pixel_mean', 'pixel_std'):
            values = getattr(self, name)
            if len(values) != 3 or not all(map(_is_number, values)):
                raise ValueError(f'Expected {name} to be 3 numbers, got {list(values)}.')
        if min(self.pixel_std) <= 0:
            raise ValueError(
                f'Expected pixel_std to be 3 numbers above 0, got {list(self.pixel_std)}.'
            )

    def _check_classes(self) -> None:
        for name, kind, what in (
            ('class_names', str, 'texts'),
            ('thing_classes', bool, 'true or false'),
        ):
            values = getattr(self, name)
            wrong = [value for value in values if type(value) is not kind]
            if wrong:
                raise ValueError(f'Expected {name} to be {what}, got {wrong[0]!r} among them.')
            if len(values) != self.num_classes:
                raise ValueError(
                    f'Expected {self.num_classes} entries in {name}, one per class, '
                    f'got {len(values)}.'
                )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VidEoMTConfig:
        """Build the record from plain values; the inverse of `to_dict`.

        Raises:
            ValueError: a field is unknown, missing or out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f'Unknown settings of a network: {", ".join(unknown)}. '
                f'Expected some of: {", ".join(sorted(known))}.'
            )
        if 'num_classes' not in values:
            raise ValueError('A network needs num_classes, which is missing.')
        return cls(**values)


def _is_number(value: object) -> bool:
    """True for a finite int or float; bool counts as neither."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
