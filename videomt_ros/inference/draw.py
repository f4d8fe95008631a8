"""Draw segments over an image: masks, outlines, boxes and labels, coloured by track id."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.structures import Segment, Segments, TrackState

_GOLDEN_RATIO = 0.618033988749895


def track_color(track_id: int) -> tuple[int, int, int]:
    """Choose the colour of a track, RGB 0..255."""
    # Steps of the golden ratio keep the hues of neighbouring ids far apart.
    hue = track_id * _GOLDEN_RATIO % 1.0
    # Value and saturation vary too, since people distinguish only about a dozen hues.
    red, green, blue = colorsys.hsv_to_rgb(
        hue, (0.85, 0.6, 1.0)[track_id % 3], (1.0, 0.95, 0.8)[track_id // 3 % 3]
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    image: NDArray[np.uint8],
    segments: Segments,
    alpha: float = 0.45,
    labels: bool = True,
    boxes: bool = True,
    scores: bool = True,
) -> NDArray[np.uint8]:
    """Draw segments over their image.

    Args:
        image: RGB, (H, W, 3) uint8; not changed.
        segments: result of the same size.
        alpha: weight of a mask's colour, 0..1.
        labels: write id, class name and score at each segment.
        boxes: draw the boxes of things; stuff has none.
        scores: write scores in the labels; ground truth has none.

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
    if shown:
        # A table from id to colour, so that all masks are painted in one pass.
        table = np.zeros((max(s.track_id for s in shown) + 1, 3), np.uint8)
        for segment in shown:
            table[segment.track_id] = track_color(segment.track_id)
        ids = np.where(segments.ids < len(table), segments.ids, 0)
        colors = np.take(table, ids, axis=0)
        blended = cv2.addWeighted(canvas, 1.0 - alpha, colors, alpha, 0.0)
        cv2.copyTo(blended, (ids > 0).view(np.uint8), canvas)
        edges = _edges(ids)
        canvas[edges] = colors[edges]
    unit = max(1, round(min(image.shape[:2]) / 360))
    for segment in shown:
        if boxes and segment.is_thing:
            x0, y0, x1, y1 = segment.box
            corners = (x0, y0), (x1 - 1, y1 - 1)
            cv2.rectangle(canvas, *corners, track_color(segment.track_id), unit)
    if labels:
        plates: list[tuple[int, int, int, int]] = []
        for segment in shown:  # by falling score, so that the best segment chooses first
            # The centre of a wide box may be on a thing in front of the stuff.
            box = segment.box if segment.is_thing else _widest_run(segments.mask(segment.track_id))
            plates.append(_write_label(canvas, segment, box, plates, scores))
    return canvas


def _edges(ids: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the pixels of segments that touch another id, (H, W)."""
    edges = np.zeros(ids.shape, bool)
    vertical = ids[1:] != ids[:-1]
    horizontal = ids[:, 1:] != ids[:, :-1]
    edges[1:] |= vertical
    edges[:-1] |= vertical
    edges[:, 1:] |= horizontal
    edges[:, :-1] |= horizontal
    return edges & (ids > 0)


def _widest_run(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box the widest run of pixels in the row that has half of the mask (H, W) above it."""
    areas = np.cumsum(np.count_nonzero(mask, axis=1))
    y = int(np.searchsorted(areas, areas[-1] / 2))
    ends = np.flatnonzero(np.diff(mask[y], prepend=False, append=False)).reshape(-1, 2)
    left, right = ends[np.argmax(ends[:, 1] - ends[:, 0])].tolist()
    return left, y, right, y + 1


def _write_label(
    canvas: NDArray[np.uint8],
    segment: Segment,
    box: tuple[int, int, int, int],
    plates: list[tuple[int, int, int, int]],
    scores: bool,
) -> tuple[int, int, int, int]:
    """Write 'id name score' on a dark plate inside the image.

    Args:
        canvas: image to write on.
        segment: the segment to label.
        box: box next to which to write: above it for things, in its centre for stuff, if there is
            room.
        plates: boxes of the labels written so far, which are avoided if there is room.
        scores: write the score, too.

    Returns:
        Box of the plate, (x0, y0, x1, y1), x1 and y1 exclusive.
    """
    height, width = canvas.shape[:2]
    text = f'{segment.track_id} {segment.class_name}'
    if scores:
        text += f' {segment.score:.2f}'
    if segment.state is TrackState.TENTATIVE:
        text += ' ?'
    # 0.35 is the smallest legible scale of this font.
    scale = max(0.35, min(height, width) / 1000)
    thickness = max(1, round(scale * 1.5))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), below = cv2.getTextSize(text, font, scale, thickness)
    plate_width, plate_height = text_width + 2, text_height + below + 2
    x0, y0, x1, y1 = box
    above, under = (x0, y0 - plate_height), (x0, y1)
    middle = ((x0 + x1 - plate_width) // 2, (y0 + y1 - plate_height) // 2)
    places = (above, under, middle) if segment.is_thing else (middle, above, under)
    boxes = []
    for left, top in places:
        left = max(0, min(left, width - plate_width))
        top = max(0, min(top, height - plate_height))
        boxes.append((left, top, left + plate_width, top + plate_height))
    plate = min(boxes, key=lambda box: sum(_overlap(box, other) for other in plates))
    left, top, right, bottom = plate
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), (24, 24, 24), -1)
    color = tuple(int(0.5 * part + 127) for part in track_color(segment.track_id))
    baseline = (left + 1, bottom - below - 1)
    cv2.putText(canvas, text, baseline, font, scale, color, thickness, cv2.LINE_AA)
    return plate


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """Count the pixels that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    return max(0, width) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
