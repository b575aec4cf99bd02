"""The pairs of classes that are confused most."""

from collections.abc import Callable, Sequence

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import Html, link, paragraph, table


def section(run: RunContent, found: Predictions, gallery_of: Callable[[Pair], str]) -> Html:
    """Both lists; `gallery_of`: what a pair's link leads to, empty for nothing."""
    pairs = shown.pairs(found.labels, found.top[0], run.facts.num_classes)
    if not pairs:
        return Html("<h2>Confused pairs</h2>" + paragraph("No image is taken for one of another class."))
    words = (
        "Left, the pairs with the most images; right, those that take the largest share of a class, in which pairs of "
        "small classes stand that few images would hide."
    )
    lists = [
        f"<div><h3>{heading}</h3>{_list(run, part, gallery_of)}</div>"
        for heading, part in (("By number", shown.by_count(pairs)), ("By share of the class", shown.by_share(pairs)))
    ]
    return Html("<h2>Confused pairs</h2>" + paragraph(words, "soft") + f'<div class="pair">{"".join(lists)}</div>')


def _list(run: RunContent, pairs: Sequence[Pair], gallery_of: Callable[[Pair], str]) -> Html:
    rows = [
        (
            link(gallery_of(pair), words(run, pair)),
            f"{pair.images:,} of {pair.of:,}",
            f"{100 * pair.images / pair.of:.0f}",
        )
        for pair in pairs
    ]
    return table(("class → taken for", "images", "%"), rows, -1, "tall words")


def words(run: RunContent, pair: Pair) -> str:
    """A pair in words."""
    names = run.facts.class_names
    return f"{names[pair.true]} → {names[pair.taken]}"
