"""The page of `ncl-jax inspect`: what a data set holds and what spoils it, as pictures."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from ncl_jax.data.dataset import Data
from ncl_jax.data.longtail import count_labels
from ncl_jax.errors import printable
from ncl_jax.report import charts, html, plots
from ncl_jax.report.findings import SUSPECTED, Findings, Remark, file_name, group_names
from ncl_jax.report.html import Html, capital, document, figure, folded, paragraph, table
from ncl_jax.report.thumbnails import Thumbnails
from ncl_jax.trust.duplicates import Pairs

PICTURES = 4_200_000  # bytes of all pictures; the page stays below 5 MB
SHOWN_PAIRS, SHOWN_SUSPECTS, SHOWN_OUTLIERS, SHOWN_CLASSES, LISTED = 40, 20, 40, 60, 200
FOLDED_SUSPECTS = 150  # of a group of classes, beside those that are shown
OF_CLASS = 4  # pictures of each class
MOST_ODDS = 1000  # that are told apart: no temperature makes larger ones mean what they say
GROUPS = {"many": "more than 100", "medium": "20 to 100", "few": "fewer than 20"}  # training images
PAGE = "inspect.html"
TABLE = "suspected_labels.csv"


class Inspected(NamedTuple):
    """All that the page shows."""

    name: str  # of the data
    data: Data
    found: Findings
    problems: Sequence[Remark]  # what would stop or spoil a run
    remarks: Sequence[Remark]  # what should be known


def page(of: Inspected) -> str:
    """The page."""
    pictures = Thumbnails(of.data.splits(), PICTURES)
    counts = of.data.facts.class_counts
    title = f"{of.name}: {sum(counts):,} training images in {len(counts):,} classes"
    above = [f"<h1>{escape(title)}</h1>", summary(of), leaked(of, pictures), suspects(of, pictures)]
    below = [repeated(of, pictures), outliers(of, pictures), remarks(of), classes(of, pictures)]
    folded_away = more_suspects(of, pictures)  # last: pictures that all see have the room first
    return document(title, "\n".join([*above, folded_away, *below, pictures.style()]))


def summary(of: Inspected) -> Html:
    """What was found, in sentences, the worst first."""
    found, split, said = of.found, of.data.facts.split, []
    if of.problems:
        said.append(f'<a href="#remarks">{_plural(len(of.problems), "problem")} would stop or spoil a run</a>.')
    if count := len(found.leaked.first):
        total = len(of.data.test)
        shares = ""
        if found.accuracy is not None and np.isfinite(found.accuracy[1]):
            whole, rest = (f"{100 * share:.1f} %" for share in found.accuracy)
            shares = f" A simple classifier has {whole} accuracy with them and {rest} without."
        text = f"{_plural(count, 'image')} of {total:,} in {escape(split)} {_are(count)} nearly {_a(count)} of training"
        said.append(f'<a href="#leaked">{text} images</a>: remove them from one of the two.{shares}')
    if found.suspects is not None and (count := len(found.suspects.rows)):
        text = f"{_plural(count, 'label')} may be wrong"
        said.append(f'<a href="#suspects">{text}</a>: look at them; <code>{TABLE}</code> corrects those that are.')
    if count := len(found.repeated.first):
        text = f"{_plural(count, 'training image')} {_are(count)} nearly {_a(count)} of others"
        said.append(f'<a href="#repeated">{text}</a>.')
    if found.outliers is not None and (count := len(found.outliers)):
        said.append(
            f'<a href="#outliers">{_plural(count, "training image")} resemble{"s" * (count == 1)} no other</a>.'
        )
    if found.unjudged:
        count = len(found.unjudged)
        said.append(f"Labels of {_plural(count, 'class', 'classes')} of fewer than 3 images cannot be judged.")
    said += [escape(capital(printable(note))) + "." for note in found.notes]
    listed = "".join(f"<li>{line}</li>" for line in said or ["Nothing was found that would spoil a run."])
    return Html(f'<div class="verdict"><ul>{listed}</ul></div>')


def leaked(of: Inspected, pictures: Thumbnails) -> Html:
    """Training images beside their near duplicates in the split that is evaluated."""
    split = of.data.facts.split
    text = (
        f"What the model has memorised counts as right in {split}. Images are compared by {of.found.compared_by}: "
        "copies of another size or compression are found, crops often not. Photographs taken in a row look the same."
    )
    return _pairs(of, pictures, of.found.leaked, split, "leaked", f"In train and in {split}", text)


def repeated(of: Inspected, pictures: Thumbnails) -> Html:
    """Training images beside later near duplicates, those with two labels first."""
    pairs, labels = of.found.repeated, of.data.train.labels
    order = np.argsort(labels[pairs.first] == labels[pairs.second], kind="stable")
    pairs = Pairs(*(part[order] for part in pairs))
    text = "Copies count more than once in training. Of a pair with two labels one label is wrong; those come first."
    return _pairs(of, pictures, pairs, "train", "repeated", "Twice in train", text)


def _pairs(of, pictures, pairs, split, name, heading, text) -> Html:
    if not len(pairs.first):
        return Html()
    shown, items = min(len(pairs.first), SHOWN_PAIRS), []
    for one, other, difference in zip(
        *(part.tolist() for part in (pairs.first, pairs.second, pairs.differences)), strict=True
    ):
        items.append(
            f'<figure><div class="two">{_image(of, pictures, "train", one)}{_image(of, pictures, split, other)}</div>'
            f"<figcaption>{'equal grey values' if difference == 0 else ''}</figcaption></figure>"
        )
        if len(items) == shown:
            break
    more = f" Shown are the nearest {shown} of {len(pairs.first):,}." if shown < len(pairs.first) else ""
    body = f'<div class="grid large">{"".join(items)}</div>'
    return Html(f'<h2 id="{name}">{escape(heading)}</h2>{paragraph(text + more, "soft")}{body}')


def suspects(of: Inspected, pictures: Thumbnails) -> Html:
    """Suspected labels by group, each beside the nearest images of the given and of the suggested class."""
    found = of.found.suspects
    if found is None or of.found.examples is None or not len(found.rows):
        return Html()
    text = (
        "Two views that leave the image itself out agree on another class: a classifier, for which all classes are "
        "equally likely, and the nearest images. Many of these labels are right: the picture decides."
    )
    how = Html(
        f"To correct the others, delete the rows of <code>{TABLE}</code> whose labels are right, and pass the table: "
        f"<code>ncl-jax train ... --labels={TABLE}</code>. Its column <code>label</code> holds the suggested class; "
        "another class may be written there, or - to remove the image."
    )
    parts = [f'<h2 id="suspects">Labels that may be wrong</h2>{paragraph(text, "soft")}{paragraph(how)}']
    for words, places in _by_group(of):
        shown = f", the {SHOWN_SUSPECTS} most probable" if len(places) > SHOWN_SUSPECTS else ""
        parts.append(f"<h3>{len(places):,}{words}{shown}</h3>")
        items = "".join(_suspect(of, pictures, i) for i in places[:SHOWN_SUSPECTS])
        parts.append(f'<div class="grid large">{items}</div>')
    return Html("".join(parts))


def more_suspects(of: Inspected, pictures: Thumbnails) -> Html:
    """The suspected labels that `suspects` has no room for, folded away, and the columns of the table."""
    found = of.found.suspects
    if found is None or of.found.examples is None or not len(found.rows):
        return Html()
    parts = []
    for words, places in _by_group(of):
        rest = places[SHOWN_SUSPECTS:]
        if rest:
            items = "".join(_suspect(of, pictures, i) for i in rest[:FOLDED_SUSPECTS])
            left_out = len(rest) - FOLDED_SUSPECTS
            more = paragraph(f"{left_out:,} more are in {TABLE}.") if left_out > 0 else ""
            parts.append(folded(f"The other {len(rest):,}{words}", f'<div class="grid large">{items}</div>{more}'))
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in SUSPECTED.items())
    return Html("".join(parts) + folded(f"The columns of {TABLE}", f"<dl>{listed}</dl>"))


def _by_group(of: Inspected) -> list[tuple[str, list[int]]]:
    """The suspected labels by group of their classes: words for it, none where all classes are in one, and places."""
    found, groups = of.found.suspects, group_names(of.data)
    assert found is not None
    by_group = []
    for group, size in GROUPS.items():
        words = f" in classes of {size} training images" if len(set(groups)) > 1 else " labels"
        places = [i for i, row in enumerate(found.rows) if groups[of.data.train.labels[row]] == group]
        by_group.append((words, places))
    return [(words, places) for words, places in by_group if places]


def _suspect(of, pictures, index) -> str:
    found, names = of.found.suspects, of.data.facts.class_names
    row = int(found.rows[index])
    classes = names[of.data.train.labels[row]], names[found.suggested[index]]
    near = of.found.examples[index].reshape(2, -1).tolist()
    beside = []
    for words, name, rows in zip(("given", "suggested"), classes, near, strict=True):
        shown = "".join(pictures.show("train", other, name) for other in rows if other >= 0)
        beside.append(f"<div>{words}: <b>{escape(printable(name))}</b>{shown}</div>")
    odds = np.exp(min(-found.margin[index], 9))
    odds = f"{odds:.0f} to 1" if odds < MOST_ODDS else f"above {MOST_ODDS:,} to 1"
    text = f"<b>{escape(printable(classes[0]))}</b>, perhaps <b>{escape(printable(classes[1]))}</b> (odds {odds})"
    return (
        f"<figure>{pictures.show('train', row, classes[0])}<figcaption>{text}{_code(of, 'train', row)}</figcaption>"
        f'<div class="two near">{"".join(beside)}</div></figure>'
    )


def outliers(of: Inspected, pictures: Thumbnails) -> Html:
    """Images that resemble no other."""
    rows, distances = of.found.outliers, of.found.distances
    if rows is None or distances is None or not len(rows):
        return Html()
    text = (
        "Their ten nearest images are unusually far away. Some are not photographs of the classes at all; others are "
        "the rare views that a model needs most. The number is the distance over the usual one."
    )
    more = f" Shown are the farthest {SHOWN_OUTLIERS} of {len(rows):,}." if len(rows) > SHOWN_OUTLIERS else ""
    items = [
        f"<figure>{_image(of, pictures, 'train', row, f'{distance:.1f} x')}</figure>"
        for row, distance in zip(rows[:SHOWN_OUTLIERS].tolist(), distances.tolist(), strict=False)
    ]
    body = f'<div class="grid">{"".join(items)}</div>'
    return Html(f'<h2 id="outliers">Unlike all others</h2>{paragraph(text + more, "soft")}{body}')


def remarks(of: Inspected) -> Html:
    """What would stop or spoil a run, and what is not used or otherwise worth knowing."""
    parts = ['<h2 id="remarks">Files and classes</h2>']
    for kind, every in (("warn", of.problems), ("", of.remarks)):
        for remark in every:
            more = [f"... and {len(remark.items) - LISTED:,} more"] if len(remark.items) > LISTED else []
            items = "".join(f"<li>{escape(printable(item))}</li>" for item in [*remark.items[:LISTED], *more])
            text = capital(printable(remark.text.removeprefix("warning: ")))
            mark = "warn" if remark.is_warning() else kind
            parts.append(folded(text, f"<ul>{items}</ul>", kind=mark) if items else paragraph(text, mark))
    return Html("".join(parts)) if len(parts) > 1 else Html()


def classes(of: Inspected, pictures: Thumbnails) -> Html:
    """The classes, the largest first, with their sizes and pictures of each; of many the largest and the smallest."""
    data, names = of.data, of.data.facts.class_names
    counts = {name: count_labels(split.labels, len(names)) for name, split in data.splits().items()}
    order, groups = np.argsort(-counts["train"], kind="stable").tolist(), group_names(data)
    left_out = max(len(order) - SHOWN_CLASSES, 0)
    shown = order if not left_out else order[: SHOWN_CLASSES // 2] + order[-SHOWN_CLASSES // 2 :]
    rows = np.random.RandomState(0).permutation(len(data.train))  # the same in every NumPy
    of_class = data.train.labels[rows]
    lines = []
    for label in shown:
        seen = rows[of_class == label][:OF_CLASS].tolist()
        strip = "".join(pictures.show("train", row, names[label]) for row in seen)
        cells = [f"{numbers[label]:,}" for numbers in counts.values()]
        group = [groups[label]] if len(set(groups)) > 1 else []
        lines.append([printable(names[label]), *cells, *group, Html(f'<div class="strip">{strip}</div>')])
    chart = plots.svg(charts.class_sizes(of.name, data.facts.class_counts, names), "sizes of the classes")
    more = f"Shown are the {SHOWN_CLASSES // 2} largest and smallest of {len(order):,}." if left_out else ""
    heads = ["class", *counts, *(["group"] if len(set(groups)) > 1 else []), "training images"]
    return Html(f"<h2>Classes</h2>{figure(chart, kind='single')}{paragraph(more)}{table(heads, lines, -1)}")


def _image(of, pictures, split, row, words="") -> str:
    """A picture with its class and file name."""
    name = printable(of.data.facts.class_names[of.data.splits()[split].labels[row]])
    caption = f"{escape(split)}: <b>{escape(name)}</b> {escape(words)}{_code(of, split, row)}"
    return f"<div>{pictures.show(split, row, name)}<figcaption>{caption}</figcaption></div>"


def _code(of, split, row) -> str:
    return html.file_name(file_name(of.data, split, row))


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _a(count: int) -> str:
    return "a copy" if count == 1 else "copies"
