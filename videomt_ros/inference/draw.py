"""Draw segments over an image: masks, outlines, boxes, trails and labels, coloured by track id."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.trails import Trails
from videomt_ros.structures import Segment, Segments, TrackState

_GOLDEN_RATIO = 0.618033988749895
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PLATE = (24, 24, 24)
_NOTE = (255, 200, 80)
_LONGEST_NAME = 24
"""Number of letters of a class name that are written at most."""
_BAND = 32768
"""Number of pixels that are painted at once, so that they stay in the cache."""
_MOST_COVERED = 0.25
"""Share of the image that labels may cover before the others become ids alone."""

Box = tuple[int, int, int, int]


def track_color(track_id: int) -> tuple[int, int, int]:
    """Choose the colour of a track, RGB 0..255."""
    # Steps of the golden ratio keep the hues of neighbouring ids far apart.
    hue = track_id * _GOLDEN_RATIO % 1.0
    # Value and saturation vary too, since people distinguish only about a dozen hues.
    red, green, blue = colorsys.hsv_to_rgb(
        hue, (0.85, 0.6, 1.0)[track_id % 3], (1.0, 0.95, 0.8)[track_id // 3 % 3]
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def positions(segments: Segments) -> dict[int, tuple[float, float]]:
    """Get the centre of the box of each thing in view, (x, y) in pixels, for `Trails.update`."""
    return {
        segment.track_id: (
            (segment.box[0] + segment.box[2]) / 2,
            (segment.box[1] + segment.box[3]) / 2,
        )
        for segment in segments.segments
        if segment.area and segment.is_thing
    }


def draw(
    image: NDArray[np.uint8],
    segments: Segments,
    alpha: float = 0.45,
    labels: bool = True,
    boxes: bool = True,
    scores: bool = True,
    trails: Trails | None = None,
    note: str = '',
) -> NDArray[np.uint8]:
    """Draw segments over their image.

    Labels do not cover one another: where there is no room, a label is written without its score,
    then with its id alone, and at last left out, those with the lowest scores first.

    Args:
        image: RGB, (H, W, 3) uint8; not changed.
        segments: result of the same size.
        alpha: weight of a mask's colour, 0..1.
        labels: write id, class name and score at each segment.
        boxes: draw the boxes of things; stuff has none.
        scores: write scores in the labels; ground truth has none.
        trails: positions (x, y) of the tracks in earlier frames, which become lines; None: none.
        note: line of text along the lower edge.

    Returns:
        A new image, RGB, (H, W, 3) uint8.

    Raises:
        ValueError: image and segments differ in size.
    """
    if image.shape != (*segments.ids.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f'Expected an RGB image {(*segments.ids.shape, 3)} uint8 like the segments, '
            f'got {image.shape} {image.dtype}.'
        )
    canvas = np.array(image, order='C')
    shown = [segment for segment in segments.segments if segment.area]
    short_side = min(image.shape[:2])
    for segment in shown:
        _paint_mask(canvas, segments.ids, segment, alpha, max(1, round(short_side / 540)))
    unit = max(1, round(short_side / 360))
    for segment in shown:
        if boxes and segment.is_thing:
            x0, y0, x1, y1 = segment.box
            corners = (x0, y0), (x1 - 1, y1 - 1)
            cv2.rectangle(canvas, *corners, track_color(segment.track_id), unit)
    if trails is not None:
        for segment in shown:
            _draw_trail(canvas, trails.of(segment.track_id), track_color(segment.track_id), unit)
    if labels:
        writer = _LabelWriter(canvas, scores)
        for segment in shown:  # by falling score, so that the best segment chooses first
            # The centre of a wide box may be on a thing in front of the stuff.
            writer.write(
                segment, segment.box if segment.is_thing else _widest_run(segments, segment)
            )
    if note:
        _write_note(canvas, note)
    return canvas


def _write_note(canvas: NDArray[np.uint8], text: str) -> None:
    """Write a line of text along the lower edge, smaller than the labels if it would not fit."""
    height, width = canvas.shape[:2]
    scale = max(0.45, min(height, width) / 600)
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1.0, (width - 8) / text_width)
    thickness = max(1, round(scale * 1.5))
    (_, text_height), below = cv2.getTextSize(text, _FONT, scale, thickness)
    canvas[max(0, height - text_height - below - 4) :] = _PLATE
    origin = (4, height - below - 1)
    cv2.putText(canvas, text, origin, _FONT, scale, _NOTE, thickness, cv2.LINE_AA)


def _paint_mask(
    canvas: NDArray[np.uint8],
    ids: NDArray[np.uint16],
    segment: Segment,
    alpha: float,
    outline: int,
) -> None:
    """Blend a segment's pixels with its colour, and fill those near its edge with it.

    Args:
        canvas: image to paint on.
        ids: track id of each pixel, (H, W).
        segment: a segment whose box holds all its pixels.
        alpha: weight of the colour.
        outline: width of the outline, which lies within the mask, in pixels.
    """
    x0, y0, x1, y1 = segment.box
    left, right = max(0, x0 - 1), min(x1 + 1, canvas.shape[1])
    rows = max(1, _BAND // (right - left))
    color = np.empty((rows, right - left, 3), np.uint8)
    cv2.rectangle(color, (0, 0), (right - left - 1, rows - 1), track_color(segment.track_id), -1)
    for top in range(y0, y1, rows):
        bottom = min(top + rows, y1)
        # The outline needs the pixels around the band; the border of the image is no edge.
        first = max(0, top - outline)
        around = ids[first : bottom + outline, left:right]
        mask = (around == segment.track_id).view(np.uint8)
        edge = cv2.subtract(mask, cv2.erode(mask, _CROSS, iterations=outline))
        band = slice(top - first, bottom - first)
        view, fill = canvas[top:bottom, left:right], color[: bottom - top]
        cv2.copyTo(cv2.addWeighted(view, 1.0 - alpha, fill, alpha, 0.0), mask[band], view)
        cv2.copyTo(fill, edge[band], view)


def _draw_trail(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    color: tuple[int, int, int],
    unit: int,
) -> None:
    """Draw a line through points (x, y), (N, 2), with a dot at the newest one."""
    if not len(points):
        return
    line = points.round().astype(np.int32).reshape(-1, 1, 2)
    # A dark border sets it off from a mask of its own colour.
    for tint, extra in ((_PLATE, 2), (color, 0)):
        cv2.polylines(canvas, [line], False, tint, unit + extra, cv2.LINE_AA)
        cv2.circle(canvas, line[-1, 0].tolist(), 2 * unit + extra // 2, tint, -1, cv2.LINE_AA)


def _widest_run(segments: Segments, segment: Segment) -> Box:
    """Box the widest run of pixels in the row that has half of the segment above it."""
    x0, y0, x1, y1 = segment.box
    mask = segments.ids[y0:y1, x0:x1] == segment.track_id
    areas = np.cumsum(np.count_nonzero(mask, axis=1))
    y = int(np.searchsorted(areas, areas[-1] / 2))
    ends = np.flatnonzero(np.diff(mask[y], prepend=False, append=False)).reshape(-1, 2)
    left, right = ends[np.argmax(ends[:, 1] - ends[:, 0])].tolist()
    return x0 + left, y0 + y, x0 + right, y0 + y + 1


class _LabelWriter:
    """Writes 'id name score' on dark plates, none of which covers another."""

    def __init__(self, canvas: NDArray[np.uint8], scores: bool) -> None:
        """Start without labels.

        Args:
            canvas: image to write on.
            scores: write the scores, too.
        """
        self._canvas = canvas
        self._scores = scores
        self._height, self._width = canvas.shape[:2]
        # 0.35 is the smallest legible scale of this font.
        self._scale = max(0.35, min(self._height, self._width) / 1000)
        self._thickness = max(1, round(self._scale * 1.5))
        self._stripe = max(2, round(6 * self._scale))
        self._plates = np.zeros((0, 4), np.int64)

    def write(self, segment: Segment, box: Box) -> None:
        """Label a segment beside a box, or within it, if there is room."""
        for text in self._texts(segment):
            (text_width, text_height), below = cv2.getTextSize(
                text, _FONT, self._scale, self._thickness
            )
            width, height = text_width + self._stripe + 4, text_height + below + 2
            plates = self._places(box, width, height, centred=not segment.is_thing)
            low = np.maximum(plates[:, None, :2], self._plates[:, :2])
            high = np.minimum(plates[:, None, 2:], self._plates[:, 2:])
            overlaps = (low[..., 0] < high[..., 0]) & (low[..., 1] < high[..., 1])
            free = np.flatnonzero(~np.any(overlaps, axis=1))
            if len(free):
                plate = plates[free[0]]
                self._plates = np.vstack([self._plates, plate])
                self._write(text, plate.tolist(), below, track_color(segment.track_id))
                return

    def _texts(self, segment: Segment) -> list[str]:
        """List what may be written, the longest first."""
        name = segment.class_name
        if len(name) > _LONGEST_NAME:
            name = f'{name[: _LONGEST_NAME - 2]}..'
        sure = ' ?' if segment.state is TrackState.TENTATIVE else ''
        short, medium = f'{segment.track_id}{sure}', f'{segment.track_id} {name}{sure}'
        sizes = self._plates[:, 2:] - self._plates[:, :2]
        if sizes.prod(1).sum() > _MOST_COVERED * self._height * self._width:
            return [short]
        long = f'{segment.track_id} {name} {segment.score:.2f}{sure}'
        return [long, medium, short] if self._scores else [medium, short]

    def _places(self, box: Box, width: int, height: int, centred: bool) -> NDArray[np.int64]:
        """List the plates of a size at a box, the best first, (N, 4); all within the image."""
        x0, y0, x1, y1 = box
        middle = ((x0 + x1 - width) // 2, (y0 + y1 - height) // 2)
        corners = [
            (x0, y0 - height),
            (x0, y1),
            (x1 - width, y0 - height),
            (x1 - width, y1),
            (x0, y0),
            (x0, y1 - height),
            (x1, y0),
            (x0 - width, y0),
            (x1, y1 - height),
            (x0 - width, y1 - height),
        ]
        corners.insert(0 if centred else len(corners), middle)
        # A little farther off, if all of these are taken.
        for step in (2, 3):
            corners += [(x0, y0 - step * height), (x0, y1 + (step - 1) * height)]
        places = np.array(corners)
        limits = max(0, self._width - width), max(0, self._height - height)
        places = np.clip(places, 0, limits)
        return np.hstack([places, places + (width, height)])

    def _write(self, text: str, plate: list[int], below: int, color: tuple[int, int, int]) -> None:
        left, top, right, bottom = plate
        cv2.rectangle(self._canvas, (left, top), (right - 1, bottom - 1), _PLATE, -1)
        stripe = left + self._stripe - 1
        cv2.rectangle(self._canvas, (left, top), (stripe, bottom - 1), color, -1)
        tint = tuple(int(0.3 * part + 178) for part in color)
        origin = (left + self._stripe + 2, bottom - below - 1)
        cv2.putText(
            self._canvas, text, origin, _FONT, self._scale, tint, self._thickness, cv2.LINE_AA
        )
