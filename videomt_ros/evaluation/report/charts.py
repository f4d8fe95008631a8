"""Charts of the report as inline SVG: line charts, and timelines of a video.

The strings are whole elements with all text escaped. Colours and fonts come from page.css by
class name, so that a chart follows the page into dark mode and onto paper. No element has an
id, so that any number of charts can share a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 380, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 44
"""Size of a line chart and its margins, in units of its view box."""


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    """Points (x, y) in the units of the axes."""
    style: str
    """Class name in page.css, which sets colour and dashes."""
    marked: bool = False
    """Whether each point gets a dot, as measured points do."""


def line_chart(
    lines: Sequence[Line],
    alt: str,
    x_label: str,
    y_label: str,
    x_max: float,
    y_max: float,
) -> str:
    """Draw curves over axes that begin at 0.

    Args:
        lines: curves in the order of drawing; the legend is up to the page.
        alt: description of the chart for people who cannot see it.
        x_label: label of the x axis, with its unit.
        y_label: label of the y axis, with its unit.
        x_max: largest x, more than 0.
        y_max: largest y, more than 0.

    Returns:
        An svg element.
    """
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bottom = _TOP + plot_height

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + plot_width * x / x_max, bottom - plot_height * y / y_max

    parts = []
    for value in _ticks(y_max):
        y = place(0, value)[1]
        parts.append(_line('grid', _LEFT, y, _LEFT + plot_width, y))
        parts.append(_text(_LEFT - 7, y + 4, f'{value:g}', 'end'))
    for value in _ticks(x_max):
        x = place(value, 0)[0]
        parts.append(_line('axis', x, bottom, x, bottom + 4))
        parts.append(_text(x, bottom + 17, f'{value:g}', 'middle'))
    parts.append(_line('axis', _LEFT, bottom, _LEFT + plot_width, bottom))
    parts.append(_text(_LEFT + plot_width / 2, _HEIGHT - 6, x_label, 'middle'))
    middle = _TOP + plot_height / 2
    turn = f' transform="rotate(-90 12 {middle:g})"'
    parts.append(_text(12, middle, y_label, 'middle', turn))
    for line in lines:
        places = [place(x, y) for x, y in line.points]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
        parts.append(f'<polyline class="curve {escape(line.style)}" points="{path}"/>')
        if line.marked:
            parts += [
                f'<circle class="dot {escape(line.style)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
                for x, y in places
            ]
    return _svg(f'class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}"', alt, parts)


def timeline(
    num_frames: int,
    events: Iterable[tuple[int, str]],
    shown: Iterable[int],
    alt: str,
    span: tuple[int, int] | None = None,
) -> str:
    """Draw the timeline of a video: a bar for each event, a square for each frame shown.

    The drawing fills the width of the page, and its text keeps its size on a phone.

    Args:
        num_frames: length of the video, at least 1.
        events: number of the frame, from 0, and a line that says what happens there.
        shown: numbers of the frames that have pictures on the page.
        alt: description of the chart for people who cannot see it.
        span: first and last frame of a clip on the page, which are underlined; None: no clip.

    Returns:
        An svg element.
    """

    def place(frame: int) -> float:
        return 100 * (frame + 0.5) / num_frames

    parts = ['<line class="lane" x1="0" y1="16" x2="100%" y2="16"/>']
    if span is not None:
        first, last = span
        begin, end = 100 * first / num_frames, 100 * (last + 1) / num_frames
        parts.append(
            f'<line class="span" x1="{begin:.2f}%" y1="29" x2="{end:.2f}%" y2="29">'
            f'<title>Frames {first} to {last}: in the clip below</title></line>'
        )
    for frame in shown:
        parts.append(
            f'<rect class="shown" x="{place(frame):.2f}%" y="9" width="14" height="14" rx="3" '
            f'transform="translate(-7 0)"><title>Frame {frame}: shown below</title></rect>'
        )
    for frame, what in events:
        x = f'{place(frame):.2f}%'
        parts.append(
            f'<line class="event" x1="{x}" y1="3" x2="{x}" y2="29">'
            f'<title>Frame {frame}: {escape(what)}</title></line>'
        )
    parts.append('<text x="0" y="44">frame 0</text>')
    if num_frames > 1:
        parts.append(f'<text x="100%" y="44" text-anchor="end">{num_frames - 1}</text>')
    return _svg('class="timeline" height="48"', alt, parts)


def round_up(value: float) -> float:
    """Round up to an end of an axis: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if step * power >= value * (1 - 1e-9))


def _ticks(end: float) -> list[float]:
    """Divide an axis into 4, 5 or 6 steps, if possible of 1, 2 or 5 times a power of 10."""
    digits = {n: f'{end / n:.10g}'.replace('.', '').strip('0') for n in (5, 4, 6)}
    count = min(digits, key=lambda n: (digits[n] not in ('1', '2', '5'), len(digits[n])))
    return [end * i / count for i in range(count + 1)]


def _svg(attributes: str, alt: str, parts: Iterable[str]) -> str:
    return f'<svg {attributes} role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'


def _line(style: str, x0: float, y0: float, x1: float, y1: float) -> str:
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line class="{style}" {ends}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = '') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(str(text))}</text>'
