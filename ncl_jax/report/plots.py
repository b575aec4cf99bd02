"""Matplotlib for pictures and pages: one style, figures without a screen, SVG that follows a page's colours."""

import contextlib
import io
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any
from urllib.parse import quote, unquote

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

from ncl_jax.data import longtail

# Pages draw letters with the browser's fonts; a picture shows boxes for those that Matplotlib's font has not.
warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
INK, SOFT, EDGE, PAGE = "#1c1f24", "#5b6470", "#d5d9df", "#fefefe"
COLORS = ("#0069a8", "#c44e00", "#00785a", "#a8447f", "#7a5c00", "#444f5c")
# In a page's SVG each colour becomes the style sheet's variable, which knows dark mode and print.
VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    EDGE: "--edge",
    PAGE: "--page",
    **{color: f"--c{i}" for i, color in enumerate(COLORS)},
}
DASHES = ("-", (0, (5, 3)), (0, (1.5, 2)), (0, (6, 2, 1, 2)), (0, (3, 1.5)), (0, (1, 1)))
MARKERS = "os^vDP"
STYLE: dict[str, Any] = {
    "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False, "axes.spines.top": False, "axes.axisbelow": True, "font.size": 10,
    "grid.color": EDGE, "grid.linewidth": 0.8, "axes.grid": True, "text.color": INK, "xtick.color": SOFT,
    "ytick.color": SOFT, "legend.frameon": False, "legend.fontsize": 9, "savefig.dpi": 130, "svg.fonttype": "none",
    "svg.hashsalt": "ncl_jax", "text.parse_math": False,
}  # fmt: skip
GROUPS, BORDERS = ("few", "medium", "many"), (20, 100)  # training images, see `longtail.groups`


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's matplotlibrc says; for figures and for saving them."""
    settings: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name}
    with matplotlib.rc_context(settings | STYLE):
        yield


def axes(
    width: float = 7.0,
    panels: int = 1,
    height: float = 4.0,
    left: float = 0.7,
    right: float = 0.15,
    below: float = 0.6,
    above: float = 0.2,
) -> tuple[Figure, np.ndarray]:
    """A figure and its row of panels, without a screen; sizes and margins in inches.

    Fixed margins: Matplotlib's own layouts draw every figure twice.
    """
    figure = Figure(figsize=(width, height))
    inside = (width - left - right) / panels - left  # of a panel, about
    place = {"left": left / width, "right": 1 - right / width, "bottom": below / height, "top": 1 - above / height}
    row = figure.subplots(1, panels, squeeze=False, gridspec_kw={**place, "wspace": left / max(inside, left)})
    return figure, row[0]


def drawn(figure: Figure, form: str, **options: Any) -> bytes:
    """The content of a file with the figure."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format=form, **options)
    return file.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as a picture."""
    return drawn(figure, "png")


def svg(figure: Figure, label: str) -> str:
    """The figure for a page; `label` says what it shows, for those who cannot see it. Texts of `say` show on hover."""
    content = drawn(figure, "svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
    text = content[content.index("<g ") :].replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{_id(label)}", text)
    text = re.sub(r'\b([xy]="[\d.]+?\.\d)\d+"', r'\1"', text)  # a tenth of a point
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    text = re.sub(r'<a href="say:([^"]*)"[^>]*>', lambda m: f"<g><title>{escape(unquote(m[1]))}</title>", text)
    width, height = figure.get_size_inches() * 72
    box = f'viewBox="0 0 {width:g} {height:g}" style="--wide:{width:g}px"'  # on narrow screens it scrolls
    start = f'<svg class="chart" role="img" aria-label="{escape(label)}" {box}>'
    return start + re.sub(r">\s+<", "><", text.replace("</a>", "</g>"))


def _id(label: str) -> str:
    """A prefix that keeps the names of a page's figures apart."""
    return f"f{zlib.crc32(label.encode()):x}-"


def say(points: PathCollection, texts: Sequence[str]) -> None:
    """What is shown when one rests on a point in a page: a text for each."""
    points.set_clip_on(False)  # a group of its own around every point
    points.set_urls([f"say:{quote(text, errors='replace')}" for text in texts])


def number_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis: 1, 2, 5, 10, ..., or all digits if there is little more than one decade."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 12 * low else range(1, 10)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def mark_groups(ax: Axes, counts: np.ndarray, height: float) -> None:
    """The names of the groups of classes that the counts reach into, at a height, and dotted borders between them."""
    low, high = ax.get_xlim()
    ends = longtail.groups(np.array([counts.min(), counts.max()]), "papers")
    first, last = np.argmax([ends[name] for name in GROUPS], axis=0)
    borders = BORDERS[first:last]
    for border in borders:
        ax.axvline(border, color=SOFT, linestyle=":", linewidth=1)
    edges = [low, *borders, high]
    for name, left, right in zip(GROUPS[first : last + 1], edges[:-1], edges[1:], strict=True):
        ax.text((left * right) ** 0.5, height, name, color=SOFT, fontsize=9, ha="center", va="center")
    ax.set_xlim(low, high)


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """A legend under the panel, if there is anything to name."""
    if ax.get_legend_handles_labels()[0]:
        below = ax.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)  # inches, under the axis's label
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(ncols=columns, columnspacing=1.2, borderaxespad=0, **place)
