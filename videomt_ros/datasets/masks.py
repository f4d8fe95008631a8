"""Masks of one object along a video, as COCO run-length codes; pixels only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Rle = dict[str, Any]
"""What pycocotools reads and writes: `size` [height, width] and `counts`, compressed, as bytes."""


@dataclass(frozen=True)
class MaskTrack:
    """One object, true or predicted, along one video of T frames."""

    video_id: int | str
    category_id: int
    masks: Sequence[Rle | None]
    """T entries; None: absent. Reading one entry may decode it, so read each once."""
    score: float = 1.0
    """Of a prediction."""
    is_crowd: bool = False
    """Of a true object: a group, which counts as ignored."""
    areas: Sequence[float | None] | None = None
    """T areas in pixels as the annotation file says; None: they are those of the masks."""
    track_id: int = 0
    """Number of the annotation, or of the prediction in its file from 1."""
