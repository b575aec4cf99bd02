"""The page of one run: a self-contained HTML document, readable without a network, a server or a script."""

from html import escape

from ncl_jax.config.fields import flatten
from ncl_jax.errors import printable
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report import (
    agreement,
    charts,
    classes,
    confusion,
    galleries,
    glossary,
    pairs,
    plots,
    promises,
    tables,
    verdict,
)
from ncl_jax.report.album import Album
from ncl_jax.report.charts import percent
from ncl_jax.report.classes import ClassFigures
from ncl_jax.report.content import RunContent
from ncl_jax.report.galleries import Shown
from ncl_jax.report.html import Html, document, figure, folded, link, paragraph, table
from ncl_jax.report.tables import baselines, columns, digits_of, heads, mean_of_classes, predictors, worse_than

MOST_BYTES = 4_900_000  # of a page, its charts and tables included
LARGEST_MATRIX = 30  # classes of a confusion matrix that is not folded away
SHOWN_FIELDS = (
    "data.augment", "data.image_size", "model.backbone", "model.depth", "model.num_experts", "model.classifier",
    "loss.name", "loss.num_hard", "optim.batch_size", "optim.learning_rate", "optim.schedule", "seed",
)  # fmt: skip
OLD = (
    "This run kept no pictures and no probabilities of single images: <code>ncl-jax evaluate --run=DIR --finish</code> "
    "makes the sections on mistakes, confused pairs and every class."
)


def page(run: RunContent, with_images: bool = True) -> str:
    """A run's page; without images it can be mailed to whom may not see them."""
    share = headline(run.results)
    heading = f"<h1>{escape(run.method)} on {escape(run.data)}: {share}</h1>"
    content = sections(run, "run", with_images=with_images)
    return document(f"{run.name}: {share}", heading + unfinished(run) + content + glossary.section())


def unfinished(run: RunContent) -> str:
    """A line on a run that has not come to its end, unless it was stopped early by its val split."""
    epoch, epochs = run.results["epoch"], run.config.epochs
    best = run.results.get("best_on_val") or {"epoch": epoch, "patience": 0}
    stopped_early = best["patience"] and epoch - best["epoch"] >= best["patience"]
    if epoch >= epochs or stopped_early:
        return ""
    words = f"Unfinished: epoch {epoch} of {epochs}. <code>ncl-jax train --resume=DIR</code> continues the run."
    return f'<p class="warn">{words}</p>'


def headline(results: dict) -> str:
    """The figure that counts."""
    places, means = digits_of(results), mean_of_classes(results)
    if means is None:
        return f"{percent(results['ensemble']['accuracy'], places)} %"
    return f"{percent(means, places)} % as a mean over classes"


def sections(run: RunContent, prefix: str, room: int = MOST_BYTES, with_images: bool = True) -> str:
    """Everything about a run, `room` bytes at most; `prefix` keeps the names of a page's charts and toggles apart."""
    found = run.predictions
    charted = [head_and_tail(run, prefix)]
    if found is not None:
        charted.append(confidence(run, found, prefix))
    charted += [promises.section(run.results), disagreement(run, prefix), course(run, prefix), facts(run)]
    if found is None:
        return "\n".join([figures(run), f'<p class="warn">{OLD}</p>', *charted])
    of = classes.figures(found, run.facts.class_counts)
    matrix = confusions(run, found, prefix)
    above = _pictured(run, found, of, prefix, room - len("".join([matrix, *charted])), with_images, matrix)
    return "\n".join([*above, *charted])


def _pictured(
    run: RunContent, found: Predictions, of: ClassFigures, prefix: str, room: int, with_images: bool, matrix: str
) -> list[str]:
    """What is said of single images and classes; the pictures take the room that is left, the worst first."""
    tables = figures(run) + classes.section(run, found, of, lambda c: f"{prefix}-class-{c}")
    album = Album(found.pictures if with_images else None, prefix, room - len(tables) - 50_000)
    shown = Shown(run, found, album, prefix)
    worst = galleries.worst(shown)
    of_pairs = galleries.of_pairs(shown)
    of_classes = galleries.of_classes(shown, of)

    def gallery_of(what: int | Pair) -> str:
        if isinstance(what, Pair):
            return galleries.pair_name(shown, what) if what in of_pairs.there else ""
        return galleries.class_name(shown, what) if what in of_classes.there else ""

    old = f'<p class="warn">{OLD}</p>' if found.pictures is None else ""
    said = verdict.section(run, found, of, f"{prefix}-worst", gallery_of)
    listed = pairs.section(run, found, gallery_of) + of_pairs.html
    every = classes.section(run, found, of, gallery_of) + of_classes.html
    return [said, old, worst, listed, matrix, every, figures(run), album.style()]


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


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
        "checksum of the training images": str(results.get("rows_checksum", "")),
    }  # fmt: skip
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    notes = [line for line in results.get("data_notes", ()) if not line.startswith("warning: ")]
    of_data = "".join(f"<li>{escape(printable(line))}</li>" for line in notes)
    known = f"<h3>Notes on the data</h3><ul>{of_data}</ul>" if notes else ""
    return f"<h2>The run</h2><dl>{listed}</dl>{known}"


def figures(run: RunContent) -> str:
    """The table of the final figures."""
    same = _sentence(tables.why_they_coincide(run.results)) if tables.coincide(run.results) else ""
    found = (
        "<h2>Figures</h2>"
        + paragraph(Html(f"{escape(same)} {link(glossary.ANCHOR, 'What the words mean')}."))
        + table(heads(run.results), [(name, *cells) for name, cells in columns(run.results)])
    )
    names, rows = baselines(run.results)
    if not rows:
        return found
    worse = _sentence(worse_than(run.results)) or "None of them is better than the run by more than chance."
    simple = table(["%", *names], [(name, *cells) for name, cells in rows])
    return found + "<h3>Simple classifiers on the frozen features</h3>" + paragraph(worse) + simple


def head_and_tail(run: RunContent, prefix: str) -> str:
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
    drawn = [
        figure(plots.svg(charts.curves(run.metrics, [panel]), f"{prefix} {panel} over the epochs"))
        for panel in charts.PANELS
    ]
    return f'<h2>Training</h2><div class="pair">{"".join(drawn)}</div>'


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
    caption = "The ensemble. Rows are true classes, sorted by training images; right predictions on the diagonal."
    content = figure(toggle, caption, "single")
    large = len(counts) > LARGEST_MATRIX
    return "<h2>Confusion matrix</h2>" + (folded(f"Of {len(counts):,} classes", content) if large else content)


def confidence(run: RunContent, found: Predictions, prefix: str) -> str:
    """Reliability diagrams of the ensemble and of the first experts, unless these are the same."""
    alone = len(found.top) < 3 or tables.coincide(run.results)
    shown = 1 if alone else min(len(found.top), 4)
    named = predictors(run.results)[:shown]
    titles = [f"{name}, ECE {percent(of['ece'], digits_of(run.results))} %" for name, of in named]
    right = found.top[:shown] == found.labels
    drawn = [
        plots.svg(charts.reliability(right[p], found.confidence[p], title), f"{prefix} reliability {p}")
        for p, title in enumerate(titles)
    ]
    text = (
        "How often a prediction is right at each confidence; the numbers are of test images, and bars of few say "
        "little. Below the dashed line the model is too sure of itself, above it it is less sure than it could be. "
        f"ECE, the expected calibration error, is the mean distance from that line. {verdict.calibration(found)}"
    )
    panels = "".join(figure(chart) for chart in drawn)
    return f'<h2>Confidence</h2><p class="soft">{text}</p><div class="panels">{panels}</div>'


def disagreement(run: RunContent, prefix: str) -> str:
    """How much the experts disagree, the largest class first (NCL, Fig. 1); nothing where they do not."""
    if not run.results.get("disagreement") or tables.coincide(run.results):
        return ""
    drawn = [
        plots.svg(agreement.draw(run.results, run.facts.class_names, kind), f"{prefix} disagreement, {kind}")
        for kind in agreement.DISAGREEMENT
    ]
    text = (
        f"Where experts that learned the same task disagree, each of them is unsure. {agreement.sentence(run.results)}"
    )
    panels = "".join(figure(chart) for chart in drawn)
    return f'<h2>Do the experts agree?</h2><p class="soft">{text}</p><div class="pair">{panels}</div>'
