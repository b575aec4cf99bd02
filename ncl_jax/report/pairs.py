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
    lists = {"By number": shown.by_count(pairs), "By share of the class": shown.by_share(pairs)}
    words = (
        "The pairs with the most images, and those that take the largest share of a class, in which pairs of small "
        "classes stand."
    )
    if len({pair.of for pair in pairs}) == 1:  # both are the same where classes have as many test images
        del lists["By share of the class"]
        words = "The pairs with the most images."
    made = [f"<div><h3>{name}</h3>{_list(run, part, gallery_of)}</div>" for name, part in lists.items()]
    return Html("<h2>Confused pairs</h2>" + paragraph(words, "soft") + f'<div class="pair">{"".join(made)}</div>')


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
