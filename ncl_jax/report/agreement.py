"""How much a run's experts disagree, from the largest class to the smallest (NCL, figure 1)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ncl_jax.report import plots
from ncl_jax.report.charts import SAID, SMOOTHED, percent, thinned
from ncl_jax.report.plots import COLORS, style

DISAGREEMENT = {"kl": ("KL between experts (nats)", 1), "top1": ("pairs that name different classes (%)", 100)}


@style()
def draw(results: dict, class_names: Sequence[str], kind: str) -> Figure:
    """How much the experts disagree on each class, from the largest to the smallest, and its mean by rank (NCL, figure
    1), by one kind of `DISAGREEMENT`: the KL divergence, or the share of pairs that name different classes."""
    figure, (ax,) = plots.axes(5.5, height=3.8)
    label, scale = DISAGREEMENT[kind]
    counts, values = results["class_counts"], results["disagreement"][kind]["per_class"]
    known = [value is not None and bool(np.isfinite(value)) for value in values]
    order = thinned([c for c in np.argsort(-np.asarray(counts), kind="stable") if known[c]])
    shown = np.array([scale * values[c] for c in order])
    points = ax.scatter(np.arange(1, len(order) + 1), shown, s=18)
    if len(order) <= SAID:
        plots.say(points, [f"{class_names[c]}, {counts[c]} training images: {scale * values[c]:.3g}" for c in order])
    if len(order) > SMOOTHED:
        parts = np.array_split(np.arange(len(order)), SMOOTHED)
        ax.plot([p.mean() + 1 for p in parts], [shown[p].mean() for p in parts], "--", color=COLORS[1])
    ax.set(xlabel="classes, the largest first", ylabel=label, ylim=(0, 1.05 * shown.max(initial=1e-9)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def sentence(results: dict) -> str:
    """A sentence that says where the experts disagree most."""
    top1 = results["disagreement"]["top1"]
    known = {name: top1[name] for name in ("many", "medium", "few") if top1[name] is not None}
    if len(known) < 2:
        return ""
    most, least = (pick(known, key=lambda name: known[name]) for pick in (max, min))
    if known[most] < 1.1 * known[least]:
        return f"Here they do so about as often in every group of classes ({_by_group(known)})."
    tail = " As in NCL's figure 1, it is mostly in the tail." if most == list(known)[-1] else ""
    return f"Here they do so most in the classes with {_words(most)} images ({_by_group(known)}).{tail}"


def _by_group(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {percent(share)} %" for name, share in shares.items())


def _words(group: str) -> str:
    return {"medium": "a medium number of"}.get(group, group)
