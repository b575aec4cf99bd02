"""The pictures of a page: the worst mistakes, and galleries of confused pairs and of classes."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report import pairs
from ncl_jax.report.album import Album
from ncl_jax.report.classes import ClassFigures, share
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import Html, file_name, folded, paragraph, text

FEWEST_SHOWN = 5  # names of files that have gone
MOST_LISTED = 20  # galleries that stand in a list


class Galleries(NamedTuple):
    """Folded galleries, and which of them there are."""

    html: Html
    there: set  # of `Pair`s or classes


class Shown(NamedTuple):
    """What all galleries of a run are made of."""

    run: RunContent
    found: Predictions
    album: Album
    prefix: str  # keeps the names of a page's runs apart

    def name(self, c: int) -> str:
        """A class's name."""
        return self.run.facts.class_names[c]

    def confidence(self, row: int) -> str:
        """The probability of the ensemble's answer."""
        return f"{100 * float(self.found.confidence[0, row]):.0f}\u00a0%"


def worst(of: Shown) -> Html:
    """The most confident mistakes, each with the nearest training images."""
    found = of.found
    rows = shown.worst(found.labels, found.top[0], found.confidence[0])
    near = _near(found)
    alike = resembling(found)
    words = (
        "The wrong predictions of the highest probability, at most two for each true and predicted class. Labels may "
        "be wrong. Below each are the training images nearest to it, with their classes and distances (0: the same, 1: "
        "nothing in common): they show what the prediction rests on."
    )
    if alike.intersection(rows):
        words += " Marked are those whose nearest training images are all of the predicted class."
    items = [_mistake(of, row, near.get(row, []), row in alike) for row in rows]
    body = f'<div class="grid large">{"".join(items)}</div>' if items else paragraph("Every prediction is right.")
    heading = f'<h2 id="{of.prefix}-worst">Mistakes, the most confident first</h2>'
    return Html(heading + paragraph(words if items else "", "soft") + _gone(of) + body)


def _near(found: Predictions) -> dict[int, list[tuple[int, int, float]]]:
    """Row, class and distance of the nearest training images, by row of a mistake."""
    if found.near is None:
        return {}
    rows = zip(*(array.tolist() for array in found.near), strict=True)
    return {row: list(zip(near, labels, away, strict=True)) for row, near, labels, away in rows}


def resembling(found: Predictions) -> set[int]:
    """The rows of the mistakes whose nearest training images are all of the predicted class."""
    if found.near is None:
        return set()
    pairs = zip(found.near.mistakes.tolist(), found.near.near_labels, strict=True)
    return {row for row, labels in pairs if len(labels) and (labels == found.top[0, row]).all()}


def _mistake(of: Shown, row: int, near: list[tuple[int, int, float]], is_marked: bool) -> str:
    true, taken = of.name(of.found.labels[row]), of.name(of.found.top[0, row])
    small = "".join(
        f"<span>{of.album.show(True, other, f'training image of {of.name(c)}')}{text(of.name(c))} {away:.2f}</span>"
        for other, c, away in near
    )
    picture = of.album.show(False, row, f"{true}, taken for {taken}")
    own = "" if of.found.true is None else f" ({100 * float(of.found.true[row]):.0f}\u00a0%)"
    return (
        f"<figure{' class=marked' if is_marked else ''}>{picture}<figcaption>{text(true)}{own}, taken for "
        f"<b>{text(taken)}</b> ({of.confidence(row)}){file_name(of.run.names.of_test(row))}"
        + (f'<div class="near">{small}</div>' if small else "")
        + "</figcaption></figure>"
    )


def _gone(of: Shown) -> Html:
    """Which pictures are missing because their files could not be read, and what to do about old runs' files."""
    if of.found.pictures is None:
        return Html()
    tested, trained = of.album.missing()
    names = [of.run.names.of_test(row) for row in tested] + [of.run.names.of_training(row) for row in trained]
    more = f" and {len(names) - FEWEST_SHOWN} more" if len(names) > FEWEST_SHOWN else ""
    gone = f"Not shown, because they could not be read when this page's pictures were made: {len(names)} images"
    lines = [f"{gone} ({', '.join(names[:FEWEST_SHOWN])}{more})."] if names else []
    if of.found.near is None and (of.found.top[0] != of.found.labels).any():
        lines.append("The nearest training images were not found when the run ended: its last lines show why.")
    return Html("".join(paragraph(line, "warn") for line in lines))


def of_pairs(of: Shown) -> Galleries:
    """A gallery for every confused pair of the lists: its images, and training images of both classes."""
    found, number = of.found, of.run.facts.num_classes
    listed = shown.shown_pairs(shown.pairs(found.labels, found.top[0], number))
    mistakes = _by_class(found.labels, found, number)
    examples = _examples(of)
    made: list[str] = []
    there = set()
    for pair in listed:
        rows = shown.of_pair(pair, found.top[0], mistakes).tolist()
        parts = _grid("", (_tested(of, row, of.confidence(row)) for row in rows))
        for c in pair[:2]:
            parts += _grid(f"Training images of {of.name(c)}", _training(of, examples[c][: shown.EXAMPLES]))
        heading = f"{pairs.words(of.run, pair)}: {pair.images:,} of {pair.of:,}"
        if _add(of, made, folded(heading, parts, pair_name(of, pair), "gallery"), bool(parts)):
            there.add(pair)
    return Galleries(_together("Images of the confused pairs", made), there)


def of_classes(of: Shown, figures: ClassFigures) -> Galleries:
    """A gallery for every class: training images, mistakes, what is taken for it; the hardest classes first."""
    found, number, names = of.found, of.run.facts.num_classes, of.run.facts.class_names
    mistakes, taken = (_by_class(classes, found, number) for classes in (found.labels, found.top[0]))
    examples = _examples(of)
    made: list[str] = []
    there = set()
    for c in shown.hardest(found.labels, found.top[0], number).tolist():
        wrong, false = mistakes[c][: shown.LEVELS].tolist(), taken[c][: shown.LEVELS].tolist()
        parts = _grid("Training images", _training(of, examples[c][: shown.LEVELS]))
        parts += _grid(
            "Mistakes", (_tested(of, row, f"→ {of.name(found.top[0, row])} {of.confidence(row)}") for row in wrong)
        )
        parts += _grid(
            f"Taken for {names[c]}",
            (_tested(of, row, f"{of.name(found.labels[row])} {of.confidence(row)}") for row in false),
        )
        heading = f"{names[c]}: {figures.right[c]:,} of {figures.tested[c]:,} right ({share(figures.recall[c])} %), "
        heading += f"{figures.training[c]:,} training images"
        if _add(of, made, folded(heading, parts, class_name(of, c), "gallery"), bool(parts)):
            there.add(c)
    return Galleries(_together("Images of the classes", made), there)


def pair_name(of: Shown, pair: Pair) -> str:
    """What a link to a pair's gallery leads to."""
    return f"{of.prefix}-pair-{pair.true}-{pair.taken}"


def class_name(of: Shown, c: int) -> str:
    """What a link to a class's gallery leads to."""
    return f"{of.prefix}-class-{c}"


def _by_class(classes: np.ndarray, found: Predictions, number: int) -> list[np.ndarray]:
    return shown.by_class(classes, shown.mistakes(found.labels, found.top[0], found.confidence[0]), number)


def _examples(of: Shown) -> list[list[int]]:
    """Training images that there are pictures of, by class; first those that were drawn by chance, not as neighbours of
    a mistake."""
    found: list[list[int]] = [[] for _ in of.run.facts.class_names]
    if of.found.pictures is None:
        return found
    neighbours = set() if of.found.near is None else set(of.found.near.near.ravel().tolist())
    rows = zip(of.found.pictures.trained.tolist(), of.found.pictures.trained_labels.tolist(), strict=True)
    for row, c in sorted(rows, key=lambda pair: pair[0] in neighbours):
        found[c].append(row)
    return found


def _tested(of: Shown, row: int, words: str) -> str:
    picture = of.album.show(False, row, words)
    return _item(picture, words, of.run.names.of_test(row)) if picture else ""


def _training(of: Shown, rows: list[int]) -> Iterable[str]:
    for row in rows:
        if picture := of.album.show(True, row, "training image"):
            yield _item(picture, "", of.run.names.of_training(row))


def _item(picture: str, words: str, file: str) -> str:
    return f"<figure>{picture}<figcaption>{text(words)}{file_name(file)}</figcaption></figure>"


def _grid(heading: str, items: Iterable[str]) -> str:
    inside = "".join(items)
    return (f"<h4>{text(heading)}</h4>" if heading else "") + f'<div class="grid">{inside}</div>' if inside else ""


def _add(of: Shown, made: list[str], gallery: str, has_pictures: bool) -> bool:
    """Adds a gallery where it has pictures and the page has room for it."""
    fits = has_pictures and len(gallery) < of.album.room
    if fits:
        of.album.room -= len(gallery)
        made.append(gallery)
    return fits


def _together(heading: str, made: list[str]) -> Html:
    """All galleries of a kind; of many each one appears when a link leads to it."""
    kind = "galleries many" if len(made) > MOST_LISTED else "galleries"
    return Html(f'<div class="{kind}"><h3>{heading}</h3>{"".join(made)}</div>' if made else "")
