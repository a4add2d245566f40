"""Lines over time, as an SVG that reads on light and dark pages."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 130
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 26, 22
COLOURS = ("#2f81f7", "#db6d28")
GREY = "#8b949e"
FONT = "font-family='system-ui, sans-serif' font-size='12'"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a panel.

    Attributes:
        name: What it shows.
        points: Time and value, in order.
    """

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share a scale, which begins at 0.

    Attributes:
        title: With the unit.
        lines: Two at most.
    """

    title: str
    lines: tuple[Line, ...]


def chart(panels: Sequence[Panel], duration: float, marks: Sequence[tuple[float, str]] = ()) -> str:
    """Return panels below each other, with one axis of time.

    Args:
        panels: From top to bottom.
        duration: Where the axis ends, in seconds.
        marks: Moments and what happened then.
    """
    height = len(panels) * HEIGHT
    body = [line for at, panel in enumerate(panels) for line in _panel(panel, at * HEIGHT, duration, marks)]
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' {FONT} fill='{GREY}'>"
    return "\n".join([head, *body, "</svg>", ""])


def ticks(most: float) -> list[float]:
    """Return round values from 0 to at least the largest one.

    >>> ticks(73.0), ticks(0.4)
    ([0.0, 50.0, 100.0], [0.0, 0.2, 0.4])
    """
    step = 10.0 ** math.floor(math.log10(most)) if most > 0 else 1.0
    step = next(size for size in (step / 5, step / 2, step, 2 * step, 5 * step) if most <= 2.0001 * size)
    return [0.0, step, 2 * step]


def minutes(duration: float) -> list[float]:
    """Return round minutes within so many seconds, ten at most.

    >>> minutes(30.0), minutes(1260.0)
    ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0, 5, 10, 15, 20])
    """
    step = next((size for size in (0.1, 0.5, 1, 2, 5, 10, 30, 60) if duration <= 540 * size), 240)
    return [round(step * number, 1) for number in range(int(duration / 60 / step + 1e-9) + 1)]


def _panel(panel: Panel, top: float, duration: float, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
    most = max((value for line in panel.lines for _, value in line.points), default=1.0)
    values = ticks(most)
    low, high = top + HEIGHT - BOTTOM, top + TOP

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / duration

    def y(value: float) -> float:
        return low - (low - high) * value / values[-1]

    for value in values:
        yield f"<path d='M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}' stroke='{GREY}' stroke-opacity='0.3'/>"
        yield f"<text x='{LEFT - 6}' y='{y(value) + 4:.1f}' text-anchor='end'>{value:,g}</text>"
    for at, _ in marks:
        yield f"<path d='M{x(at):.1f} {high}V{low}' stroke='{GREY}' stroke-dasharray='2 3'/>"
    for at in minutes(duration):
        yield f"<text x='{x(at * 60):.1f}' y='{low + 15}' text-anchor='middle'>{at:g} min</text>"
    names = LEFT
    yield f"<text x='{names}' y='{top + 16}' font-weight='600'>{escape(panel.title)}</text>"
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        path = "".join(f"{'L' if at else 'M'}{x(t):.1f} {y(v):.1f}" for at, (t, v) in enumerate(line.points))
        yield f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
        if len(panel.lines) > 1:
            names += 170
            yield f"<text x='{names}' y='{top + 16}' fill='{colour}'>{escape(line.name)}</text>"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much values grow in a unit of time (least squares); 0 for fewer than two points.

    >>> slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
    2.0
    """
    if len(points) < 2 or all(a[0] == b[0] for a, b in pairwise(points)):
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
