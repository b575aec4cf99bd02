"""The pairs of classes that are confused most."""

from collections.abc import Callable, Sequence

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import Html, folded, link, paragraph, table


def section(run: RunContent, found: Predictions, gallery_of: Callable[[Pair], str]) -> Html:
    """Both lists; `gallery_of`: what a pair's link leads to, empty for nothing."""
    pairs = shown.pairs(found.labels, found.top[0], run.facts.num_classes)
    if not pairs:
        return Html("<h2>Confused pairs</h2>" + paragraph("No image is taken for one of another class."))
    lists = {
        "By number": _by_number(run, shown.by_count(pairs), gallery_of),
        "By share of the class": _list(run, shown.by_share(pairs), gallery_of),
    }
    rule = "sorted by the share of the first class's images, pairs of one image left out"
    words = f"The first list has the pairs with the most images. The second shows pairs of small classes, too: {rule}."
    if len(shown.repeated(pairs)) == len(pairs):
        words = words.replace(", pairs of one image left out", "")
    if len({pair.of for pair in pairs}) == 1:  # both are the same where classes have as many test images
        del lists["By share of the class"]
        words = "The pairs with the most images."
    made = [f"<div><h3>{name}</h3>{part}</div>" for name, part in lists.items()]
    return Html("<h2>Confused pairs</h2>" + paragraph(words, "soft") + f'<div class="pair">{"".join(made)}</div>')


def _by_number(run: RunContent, pairs: Sequence[Pair], gallery_of: Callable[[Pair], str]) -> Html:
    """The list by number; what is a single image is folded away, if there is anything else."""
    several = [pair for pair in pairs if pair.images > 1]
    if len(several) in (0, len(pairs)):
        return _list(run, pairs, gallery_of)
    rest = pairs[len(several) :]
    number = "1 pair of one image" if len(rest) == 1 else f"{len(rest)} pairs of one image"
    return Html(_list(run, several, gallery_of) + folded(number, _list(run, rest, gallery_of)))


def _list(run: RunContent, pairs: Sequence[Pair], gallery_of: Callable[[Pair], str]) -> Html:
    rows = [
        (
            link(gallery_of(pair), words(run, pair)),
            f"{pair.images:,} of {pair.of:,}",
            f"{100 * pair.images / pair.of:.0f}",
        )
        for pair in pairs
    ]
    return table(("class → taken for", "images", "%"), rows, -1)


def words(run: RunContent, pair: Pair) -> str:
    """A pair in words."""
    names = run.facts.class_names
    return f"{names[pair.true]} → {names[pair.taken]}"
