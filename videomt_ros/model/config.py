"""The sizes and settings of a network, in one record that its checkpoint carries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Architecture = Literal['videomt', 'pmt']
BackboneFamily = Literal['dinov2', 'dinov3', 'eva02']
Propagation = Literal['none', 'query', 'fusion', 'gru']
Task = Literal['instance', 'panoptic', 'semantic']

VIT_SIZES = {
    'small': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'base': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'large': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
}
"""Sizes of ViT-S, B and L, on which all families agree."""

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
    *((name, str, 'a text') for name in ('architecture', 'family', 'propagation', 'task', 'name')),
    *((name, bool, 'true or false') for name in ('norm_queries', 'drawn_only')),
)
_LISTS = ('pixel_mean', 'pixel_std', 'class_names', 'thing_classes', 'tap_blocks')


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and settings of one network; every field is checked when the record is built."""

    num_classes: int
    """Number of classes, K. The class head has one more output, the last: no object."""
    architecture: Architecture = 'videomt'
    """Design of the network: `videomt`, whose queries pass the last blocks of the ViT, or `pmt`,
    whose queries pass a decoder beside a frozen ViT (PMT, and LVMT with `propagation` gru)."""
    family: BackboneFamily = 'dinov2'
    """Backbone family; see `videomt_ros.model.backbone`."""
    embed_dim: int = 384
    """Width of a token, C: 384, 768, 1024 for ViT-S, B, L."""
    depth: int = 12
    """Number of all blocks: 12, 12, 24 for ViT-S, B, L."""
    num_heads: int = 6
    """Number of attention heads: 6, 12, 16 for ViT-S, B, L."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP, as a multiple of `embed_dim`."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    table_size: int = 640
    """Side in pixels of the image for which the position table holds one entry per patch. Inputs
    of other sizes resample it bicubically. DINOv3 has rotary positions alone and ignores this."""
    num_queries: int = 200
    """Number of queries, Q."""
    num_query_blocks: int = 3
    """Number of blocks, L2, where queries join the patches: for `videomt` the last of the ViT (3,
    3, 4 for ViT-S, B, L), for `pmt` those of the decoder (6)."""
    tap_blocks: tuple[int, ...] = ()
    """Blocks of the ViT, from 0, whose tokens enter the decoder of `pmt`; () stands for
    4 blocks at equal distances, up to the last one: 2, 5, 8, 11 of 12."""
    decoder_mlp_ratio: float = 1.0
    """Hidden width of the MLP in a decoder block of `pmt`, as a multiple of `embed_dim`."""
    propagation: Propagation = 'fusion'
    """How queries reach the next frame; see `videomt_ros.model.network.VideoNetwork`."""
    norm_queries: bool = False
    """Whether queries are propagated after the final norm (DINOv3 VIPSeg and VSPW models of
    VidEoMT) or before it."""
    task: Task = 'instance'
    """Kind of segmentation that the network was trained for."""
    drawn_only: bool = False
    """Whether the network was trained on drawn scenes alone, so that its results in any other
    image mean nothing, whatever their scores are."""
    test_size: int = 448
    """Short side in pixels to which an image is resized, with its aspect ratio kept."""
    size_divisor: int = 32
    """Number of pixels to a multiple of which an input is padded right and bottom; it is itself a
    multiple of `patch_size`."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean that is subtracted from each pixel, RGB on the scale 0..255; default of ImageNet."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation that each pixel is divided by, as `pixel_mean`."""
    class_names: tuple[str, ...] = ()
    """Names of the K classes in the head's order."""
    thing_classes: tuple[bool, ...] = ()
    """One flag per class in the head's order: True for things, False for stuff."""
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
        self._check_decoder()
        self._check_pixels()
        if not self.class_names:
            names = tuple(f'class_{i}' for i in range(self.num_classes))
            object.__setattr__(self, 'class_names', names)
        if not self.thing_classes:
            object.__setattr__(self, 'thing_classes', (True,) * self.num_classes)
        self._check_classes()

    def _check_choices(self) -> None:
        for name, choices in (
            ('architecture', Architecture),
            ('family', BackboneFamily),
            ('propagation', Propagation),
            ('task', Task),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f'Expected {name} to be one of {", ".join(get_args(choices))}, '
                    f'got {getattr(self, name)!r}.'
                )

    def _check_sizes(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f'Expected {name} to be at least 1, got {getattr(self, name)}.')
        for name in ('mlp_ratio', 'decoder_mlp_ratio'):
            ratio = getattr(self, name)
            if not _is_number(ratio) or ratio <= 0:
                raise ValueError(f'Expected {name} to be a number above 0, got {ratio!r}.')
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f'Expected embed_dim to be a multiple of num_heads, '
                f'got {self.embed_dim} and {self.num_heads}.'
            )
        if self.num_query_blocks < 1 or (
            self.architecture == 'videomt' and self.num_query_blocks > self.depth
        ):
            most = f'from 1 to depth = {self.depth}' if self.architecture == 'videomt' else ''
            raise ValueError(
                f'Expected num_query_blocks {most or "to be at least 1"}, '
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

    def _check_decoder(self) -> None:
        """Check what only the architecture `pmt` has."""
        taps, defaults = self.tap_blocks, {'tap_blocks': (), 'decoder_mlp_ratio': 1.0}
        if self.architecture != 'pmt':
            extra = [name for name, value in defaults.items() if getattr(self, name) != value]
            if extra:
                raise ValueError(
                    f'Expected {" and ".join(extra)} with the architecture pmt alone, got '
                    f'{getattr(self, extra[0])!r} with {self.architecture}.'
                )
            return
        if self.norm_queries:
            raise ValueError(
                'Expected norm_queries to be false with the architecture pmt, which propagates '
                'queries before its norm.'
            )
        if self.embed_dim // self.num_heads % 4:
            raise ValueError(
                'Expected heads of a multiple of 4 channels for the rotary positions of the '
                f'architecture pmt, got embed_dim {self.embed_dim} and num_heads '
                f'{self.num_heads}.'
            )
        if any(type(tap) is not int for tap in taps) or list(taps) != sorted(
            set(taps) & set(range(self.depth))
        ):
            raise ValueError(
                f'Expected tap_blocks to be rising numbers from 0 to {self.depth - 1}, one less '
                f'than depth, got {list(taps)}.'
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

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks of the ViT whose tokens enter the decoder of `pmt`; see `tap_blocks`."""
        return self.tap_blocks or even_taps(self.depth, min(4, self.depth))

    @property
    def warning(self) -> str:
        """Warning that belongs to every result in real images; '' if there is none."""
        return f'{self.name or "The model"} knows drawn shapes alone' if self.drawn_only else ''

    @property
    def num_upscale_blocks(self) -> int:
        """Number of times that the patch grid is doubled to the mask grid."""
        # Patch 16 -> 2 doublings -> a quarter of the input; EoMT's rule for other patch sizes.
        return max(1, int(math.log2(self.patch_size)) - 2)

    def to_dict(self) -> dict[str, Any]:
        """Convert the record to plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Build the record from plain values; the inverse of `to_dict`.

        Raises:
            ValueError: a field is unknown, missing or out of range.
        """
        cls.check_names(values)
        if 'num_classes' not in values:
            raise ValueError('A network needs num_classes, which is missing.')
        return cls(**values)

    @classmethod
    def check_names(cls, values: Iterable[str]) -> None:
        """Raise ValueError unless all of these are names of fields."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f'Unknown settings of a network: {", ".join(unknown)}. '
                f'Expected some of: {", ".join(sorted(known))}.'
            )


def even_taps(depth: int, number: int) -> tuple[int, ...]:
    """Choose blocks at equal distances, up to the last one.

    >>> even_taps(24, 4)
    (5, 11, 17, 23)
    """
    return tuple((i + 1) * depth // number - 1 for i in range(number))


def _is_number(value: object) -> bool:
    """Tell whether a value is a finite int or float; bool counts as neither."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
