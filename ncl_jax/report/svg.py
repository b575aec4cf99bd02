"""Charts as SVG that stands in a page: its style sheet gives the colours, so that they suit a dark page and print.

Lines differ in colour and dashes, points in colour and shape; what a point is appears when the pointer rests on it.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 480, 320  # of a chart, in units of which a letter is about 7 wide
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 42  # margins
SHAPES = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.5-3.5h7v7h-7z", "M0-4.8L4.5 3.4h-9z", "M0-5L5 0L0 5L-5 0z",
          "M-4.5-3.4h9L0 4.8z", "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z")  # fmt: skip
STYLES = len(SHAPES)  # as many as the style sheet has colours and dashes


class Axis(NamedTuple):
    """One of a chart's two axes."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        change = math.log if self.log else float
        low, high = change(self.low), change(self.high)
        return (change(value) - low) / ((high - low) or 1)


def linear(label: str, low: float, high: float, whole: bool = False) -> Axis:
    """An axis with about five round ticks."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / 4))
    step = next(step * m for m in (1, 2, 2.5, 5, 10) if (high - low) / (step * m) <= 5)
    step = max(1, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return Axis(label, low, high, [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)])


def logarithmic(label: str, low: float, high: float) -> Axis:
    """An axis with ticks at 1, 2, 5, 10, ... and a little room at both ends."""
    low, high = low / 1.15, high * 1.15
    factors = (1, 2, 5) if high < 300 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return Axis(label, low, high, [tick for tick in ticks if low <= tick <= high], log=True)


class Chart:
    """A chart that is drawn mark by mark.

    Args:
      label: what it shows, for those who cannot see it.
      x, y: its axes.
      height: of the whole, in units.
    """

    def __init__(self, label: str, x: Axis, y: Axis, height: int = HEIGHT):
        self._label, self._x, self._y, self._height = label, x, y, height
        self._marks: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The units of a point."""
        across = LEFT + self._x.place(x) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(self._height - BOTTOM - self._y.place(y) * (self._height - TOP - BOTTOM), 1)

    def line(self, xs: Iterable[float], ys: Iterable[float], style: int) -> None:
        """A line through points, in one of `STYLES` styles."""
        points = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in zip(xs, ys, strict=True)))
        self._marks.append(f'<polyline class="line s{style % STYLES}" points="{points}"/>')

    def point(self, x: float, y: float, style: int, text: str) -> None:
        """A point with what is said of it."""
        self._marks.append(f"{marker(*self.at(x, y), style)}<title>{escape(text)}</title></path>")

    def bar(self, low: float, high: float, top: float, text: str) -> None:
        """A bar from the bottom up, between two places of the x axis."""
        (left, y), (right, _) = self.at(low, top), self.at(high, top)
        height = round(self._height - BOTTOM - y, 1)
        self._marks.append(
            f'<rect class="bar" x="{left + 0.5}" y="{y}" width="{round(right - left - 1, 1)}" height="{height}">'
            f"<title>{escape(text)}</title></rect>"
        )

    def rule(self, x: float, text: str) -> None:
        """A dotted upright line, with a word to its right."""
        across, top = self.at(x, self._y.high)
        bottom = self._height - BOTTOM
        self._marks.append(f'<line class="rule" x1="{across}" x2="{across}" y1="{top}" y2="{bottom}"/>')
        self._marks.append(f'<text class="note" x="{across + 4}" y="{top + 11}">{escape(text)}</text>')

    def word(self, x: float, text: str) -> None:
        """A word below the axis, where a tick's number would be."""
        self._marks.append(self._below(x, text))

    def svg(self) -> str:
        """The chart."""
        parts = [
            *(self._below(tick, f"{tick:g}") for tick in self._x.ticks),
            *map(self._up, self._y.ticks),
            *self._titles(),
            *self._marks,
        ]
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self._height}" role="img" aria-label="{escape(self._label)}">'
            + "".join(parts)
            + "</svg>"
        )

    def _below(self, x: float, text: str) -> str:
        across, bottom = self.at(x, self._y.low)
        return f'<text class="tick" text-anchor="middle" x="{across}" y="{bottom + 16}">{escape(text)}</text>'

    def _up(self, tick: float) -> str:
        left, y = self.at(self._x.low, tick)
        return (
            f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="tick" text-anchor="end" x="{left - 6}" y="{y + 4}">{tick:g}</text>'
        )

    def _titles(self) -> list[str]:
        middle, up = (LEFT + WIDTH - RIGHT) / 2, (TOP + self._height - BOTTOM) / 2
        return [
            f'<text class="title" text-anchor="middle" x="{middle}" y="{self._height - 6}">'
            f"{escape(self._x.label)}</text>",
            f'<text class="title" text-anchor="middle" transform="translate(12 {up}) rotate(-90)">'
            f"{escape(self._y.label)}</text>",
        ]


def marker(x: float, y: float, style: int) -> str:
    """The beginning of a point's element: the caller closes the path."""
    return f'<path class="point s{style % STYLES}" transform="translate({x} {y})" d="{SHAPES[style % STYLES]}">'


def legend(entries: Iterable[tuple[int, str]], points: bool = False) -> str:
    """Which style is what, for below a chart."""
    items = []
    for style, text in entries:
        sample = f"{marker(13, 6, style)}</path>" if points else f'<path class="line s{style % STYLES}" d="M0 6H26"/>'
        items.append(f'<span><svg width="26" height="12" aria-hidden="true">{sample}</svg> {escape(text)}</span>')
    return f'<div class="legend">{"".join(items)}</div>'
