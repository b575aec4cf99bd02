"""The page of one run: a self-contained HTML document, readable without a network, a server or a script."""

import base64
import importlib.resources
import io
import pathlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import ml_collections
from PIL import Image

from ncl_jax.config.choose import method_of
from ncl_jax.config.fields import complete, flatten
from ncl_jax.data.dataset import Facts
from ncl_jax.evaluation import predictions
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.report import charts, confusion, plots
from ncl_jax.report.charts import percent
from ncl_jax.report.tables import COLUMNS, predictors, worse_than

OWN_IMAGES = ("folder", "list", "tfds")
SHOWN_FIELDS = (
    "data.augment", "data.image_size", "model.backbone", "model.depth", "model.num_experts", "model.classifier",
    "loss.name", "loss.num_hard", "optim.batch_size", "optim.learning_rate", "optim.schedule", "seed",
)  # fmt: skip


class RunContent(NamedTuple):
    """All of a finished run that a page shows."""

    name: str
    results: dict
    facts: Facts
    metrics: list[dict]
    predictions: Predictions | None  # None for a run that did not keep them

    @property
    def config(self) -> ml_collections.ConfigDict:
        """Its configuration."""
        return complete(self.results["config"])

    @property
    def method(self) -> str:
        """The method by its name, or what the loss is called."""
        return method_of(self.config)

    @property
    def data(self) -> str:
        """What it was trained on: the data set's name, of own images their folder's."""
        fields = self.results["config"]["data"]
        parts = pathlib.PurePath(fields["dir"]).parts[-2 if fields["name"] == "tfds" else -1 :]  # NAME/VERSION
        return "/".join(parts) if fields["name"] in OWN_IMAGES else self.results["dataset"]


def document(title: str, body: str) -> str:
    """The whole page around its content."""
    style = importlib.resources.files("ncl_jax.report").joinpath("style.css").read_text()
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><link rel="icon" href="data:,"><title>{escape(title)}</title>\n<style>\n{style}</style>'
        f"</head>\n<body>\n{body}\n</body></html>\n"
    )
    return html.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text


def page(run: RunContent) -> str:
    """A run's page."""
    accuracy = percent(run.results["ensemble"]["accuracy"])
    heading = f"<h1>{escape(run.method)} on {escape(run.data)}: {accuracy} %</h1>"
    return document(f"{run.name}: {accuracy} %", heading + sections(run, "run"))


def sections(run: RunContent, prefix: str) -> str:
    """Everything about a run; `prefix` keeps the names of a page's charts and toggles apart."""
    parts = [facts(run), figures(run), classes(run, prefix), course(run, prefix)]
    if run.predictions is None:
        parts.append(
            '<p class="soft">What the run says of single images was not kept. '
            "<code>ncl-jax evaluate --run=DIR --finish</code> makes the sections on confusions, confidence and "
            "mistakes.</p>"
        )
    else:
        parts += [confusions(run, run.predictions, prefix), confidence(run, run.predictions, prefix)]
    if run.results.get("disagreement"):
        parts.append(disagreement(run, prefix))
    if run.predictions is not None:
        parts += [mistakes(run, run.predictions), tail(run, run.predictions)]
    return "\n".join(parts)


def facts(run: RunContent) -> str:
    """What was trained on what, with which versions."""
    results, counts = run.results, run.facts.class_counts
    config = flatten(run.config)
    groups = run.facts.groups()["papers"]
    speed, most, least = results["images_per_second"], max(counts), min(counts)
    versions = results.get("versions", {})
    rows = {
        "data": f"{run.data}: {results['num_train']:,} training images, {len(counts)} classes of {most:,} to "
        f"{least:,} (imbalance {most / max(least, 1):.4g})",
        "groups": ", ".join(f"{mask.sum()} {name}" for name, mask in groups.items())
        + " (more than 100, 20 to 100, fewer than 20 images)",
        "evaluated on": f"{results['split']}, after epoch {results['epoch']} (step {results['step']:,})",
        "recipe": " ".join(f"{name}={config[name]}" for name in SHOWN_FIELDS),
        "weights from": (results.get("pretrained") or {}).get("name", "random initialisation"),
        "time": f"{results['seconds'] / 60:.1f} min of training steps" + (f", {speed:,.0f} images/s" if speed else ""),
        "device": results["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or "not noted",
        "rows": str(results.get("rows_checksum", "")),
    }  # fmt: skip
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items()) + "</dl>"


def figures(run: RunContent) -> str:
    """The table of the final figures."""
    heads = ("", "accuracy %", "many", "medium", "few", "NLL (nats)", "ECE %")
    found = "<h2>Figures</h2>" + table(heads, [(name, *_cells(row)) for name, row in predictors(run.results)])
    baselines = run.results.get("baselines") or {}
    if not baselines:
        return found
    rows = [(name, *(percent(row[column], 2) for column in COLUMNS[:4])) for name, row in baselines.items()]
    worse = worse_than(run.results)
    return found + (
        "<h3>Simple classifiers on the same features</h3>"
        f"<p>{escape(worse[:1].upper() + worse[1:]) or 'The run is at least as good as each of them.'}</p>"
        + table(heads[:5], sorted(rows, key=lambda row: -baselines[row[0]]["accuracy"]))
    )


def _cells(row: dict) -> list[str]:
    return [f"{row[name]:.3f}" if name == "nll" else percent(row[name], 2) for name in COLUMNS]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table whose first row is the one that counts."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    lines = [
        f"<tr{' class=first' if index == 0 else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for index, row in enumerate(rows)
    ]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def figure(chart: str, caption: str = "", kind: str = "") -> str:
    """A chart with what must be said of it; kind "single": not as wide as the page."""
    return f'<figure class="{kind}">{chart}<figcaption>{escape(caption)}</figcaption></figure>' if chart else ""


def classes(run: RunContent, prefix: str) -> str:
    """Accuracy against class size."""
    drawn = plots.svg(
        charts.per_class(run.results, run.facts.class_names), f"{prefix} accuracy of each class by its size"
    )
    caption = "Each class by its number of training images; rest on a point to see which."
    return "<h2>Head and tail</h2>" + figure(drawn, caption, "single")


def course(run: RunContent, prefix: str) -> str:
    """The run over its epochs."""
    if not run.metrics:
        return ""
    drawn = charts.curves(run.metrics, bool(run.results["config"]["loss"]["balanced"]))
    return "<h2>Training</h2>" + figure(plots.svg(drawn, f"{prefix} loss and accuracy over the epochs"))


def confusions(run: RunContent, found: Predictions, prefix: str) -> str:
    """The confusion matrix, with a toggle between the share of a row and the number of images."""
    names, counts = run.facts.class_names, run.facts.class_counts
    drawn = [
        plots.svg(confusion.draw(found.labels, found.top[0], counts, names, images), f"{prefix} confusions, {kind}")
        for kind, images in (("shares", False), ("counts", True))
    ]
    group = f"{prefix}-matrix"
    toggle = (
        f'<div class="toggle"><input type="radio" class="share" name="{group}" id="{group}-s" checked>'
        f'<label for="{group}-s">share of the class</label>'
        f'<input type="radio" class="count" name="{group}" id="{group}-c"><label for="{group}-c">images</label>'
        f'<div class="shares">{drawn[0]}</div><div class="counts">{drawn[1]}</div></div>'
    )
    caption = "The ensemble. Rows are true classes, sorted by training images; right answers on the diagonal."
    return "<h2>Confusions</h2>" + figure(toggle, caption, "single")


def confidence(run: RunContent, found: Predictions, prefix: str) -> str:
    """Reliability diagrams of the ensemble and of the first experts."""
    shown = min(len(found.top), 4)
    named = zip(predictors(run.results), [run.results["ensemble"], *run.results["experts"]], strict=False)
    titles = [f"{name}, ECE {percent(of['ece'], 2)} %" for (name, _), of in named][:shown]
    drawn = charts.reliability(found.top[:shown] == found.labels, found.confidence[:shown], titles)
    text = (
        "How often an answer is right at each confidence. Below the dashed line the model is too sure of itself. ECE, "
        "the expected calibration error, is the mean distance from that line."
    )
    chart = figure(plots.svg(drawn, f"{prefix} reliability of the predictors"))
    return f'<h2>Confidence</h2><p class="soft">{text}</p>{chart}'


def disagreement(run: RunContent, prefix: str) -> str:
    """How much the experts disagree from head to tail (NCL, Fig. 1)."""
    text = (
        "Where experts that learned the same task disagree, each of them is unsure: mostly in the tail (Fig. 1 of NCL)."
    )
    drawn = charts.disagreement(run.results, run.facts.class_names)
    chart = figure(plots.svg(drawn, f"{prefix} disagreement from head to tail"))
    return f'<h2>Do the experts agree?</h2><p class="soft">{text}</p>{chart}'


def mistakes(run: RunContent, found: Predictions) -> str:
    """The most confident mistakes as pictures."""
    pairs = predictions.confident_mistakes(found.labels, found.top[0], found.confidence[0])
    text = "Each beside an image of the class that it was taken for."
    return f'<h2>The most confident mistakes</h2><p class="soft">{text}</p>' + gallery(run, found, pairs)


def tail(run: RunContent, found: Predictions) -> str:
    """The worst classes of the tail as pictures."""
    parts = []
    counts = run.facts.class_counts
    for c, pairs in predictions.worst_classes(found.labels, found.top[0], found.confidence[0], counts):
        share = percent(run.results["ensemble"]["per_class"][c])
        heading = f"<h3>{escape(run.facts.class_names[c])}: {share} % right, {counts[c]} training images</h3>"
        parts.append(heading + gallery(run, found, pairs))
    return "<h2>The tail's worst classes</h2>" + ("".join(parts) or "<p>Every class of the tail is right.</p>")


def gallery(run: RunContent, found: Predictions, pairs: predictions.Pairs) -> str:
    """Mistakes with their class, the class that they were taken for, and the confidence."""
    names, items = run.facts.class_names, []
    for row, other in pairs:
        true, taken = names[found.labels[row]], names[found.top[0, row]]
        pictures = _picture(found, row, true) + _picture(found, other, taken)
        text = f"{true}, taken for {taken} ({percent(float(found.confidence[0, row]), 0)} %)"
        items.append(f"<figure><div>{pictures}</div><figcaption>{escape(text)}</figcaption></figure>")
    return f'<div class="gallery">{"".join(items)}</div>'


def _picture(found: Predictions, row: int, text: str) -> str:
    picture, file = found.picture(row), io.BytesIO()
    if picture is None:
        return ""
    Image.fromarray(picture).save(file, "webp", quality=85)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/webp;base64,{encoded}">'
