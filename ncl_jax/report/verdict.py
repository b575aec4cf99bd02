"""What a page begins with: what the model can and cannot do, and what to do next, in sentences."""

from collections.abc import Callable, Sequence

import numpy as np

from ncl_jax.errors import printable
from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report import galleries, pairs
from ncl_jax.report.charts import percent
from ncl_jax.report.classes import ClassFigures
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import Html, link, paragraph, text
from ncl_jax.report.tables import digits_for, other_prior, worse_than
from ncl_jax.trust.intervals import at_most, wilson

FAILS = 0.5  # a class whose share of recognised images is surely below this fails
SURE = 0.975  # the confidence of what is called sure
NAMED = 8  # classes that are named in a sentence
WANTED = 5  # classes that need images
TOO_FEW = 10  # test images of a class, of which fewer say little
FEW_TRAINING = 100  # training images, of which fewer are the likely cause
TOO_SURE = 0.05  # how far the mean confidence may be from the accuracy
LOWER = 0.05  # how far below the mean a class's recall stands out
WIDE = 0.15  # an interval of the accuracy that says little: that of fewer than about 100 images


def section(
    run: RunContent, found: Predictions, of: ClassFigures, worst: str, gallery_of: Callable[[int | Pair], str]
) -> Html:
    """The verdict; `worst` is what a link to the worst mistakes leads to, `gallery_of` to a class's or pair's gallery,
    empty for none."""
    names = run.facts.class_names
    linked = lambda classes: Html(", ".join(link(gallery_of(c), names[c]) for c in classes))  # noqa: E731
    steps = [*_more_tests(of), _labels(run, found, worst), *_images(of, linked), _pair(run, found, gallery_of),
             _temperature(found)]  # fmt: skip
    listed = "".join(f"<li>{step}</li>" for step in steps if step)
    return Html(
        '<section class="verdict">'
        + paragraph(_accuracy(of))
        + paragraph(_together(run))
        + paragraph(_baselines(of))
        + paragraph(_failing(of, linked))
        + paragraph(_uncertain(of, linked))
        + paragraph(_sentence(worse_than(run.results)))
        + paragraph(_sentence(other_prior(run.results)))
        + _of_data(run)
        + (f"<h3>What to do next</h3><ul>{listed}</ul>" if listed else "")
        + "</section>"
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _accuracy(of: ClassFigures) -> Html:
    """The accuracy with its interval and the mean over classes; what counts more comes first."""
    right, number = int(of.right.sum()), int(of.tested.sum())
    places = digits_for(number)
    low, high = wilson(right, number)
    between = f"between {percent(float(low), places)} and {percent(float(high), places)} %, with a confidence of 95 %"
    accuracy = (
        f"<b>{percent(right / number, places)} %</b> of the {number:,} test images are recognised ({right:,}; the true "
        f"share is {between})"
    )
    tested = of.tested > 0
    mean, f1 = float(of.recall[tested].mean()), float(of.f1[tested].mean())
    harmonic = f"macro F1 {percent(f1, places)} %"
    means = f"<b>{percent(mean, places)} %</b> as a mean over the {tested.sum():,} classes ({harmonic})"
    if of.is_balanced():
        return Html(f"{accuracy}, {means}.")
    most, least = int(of.tested.max()), int(of.tested[tested].min())
    return Html(
        f"{means.replace('as a mean', 'of the images of a class are recognised, as a mean')}; {accuracy}. The classes "
        f"have {least:,} to {most:,} test images: the share of all images depends mostly on the large classes, so the "
        "mean over classes comes first."
    )


def _together(run: RunContent) -> str:
    """That the interval is too narrow where test images are of groups."""
    number = run.results.get("test_groups", 0)
    return (
        f"The test images are of {number:,} cameras, sites or the like (data.group_by), and those of one are alike: "
        "the interval takes each image by itself and is too narrow."
    ) * bool(number)


def _of_data(run: RunContent) -> str:
    """What makes the figures doubtful, of what was found when the data was read."""
    lines = [line.removeprefix("warning: ") for line in run.results.get("data_notes", ()) if line.startswith("warning")]
    listed = "".join(f"<li>{text(printable(line))}</li>" for line in lines)
    return f"<h3>What makes the figures doubtful</h3><ul>{listed}</ul>" if lines else ""


def _baselines(of: ClassFigures) -> str:
    """What one gets without looking at the images."""
    tested = of.tested > 0
    majority = of.tested[of.training.argmax()] / of.tested.sum()
    chance = 1 / tested.sum()
    return (
        "Without looking at the images: always naming the largest class is right for "
        f"{percent(float(majority))} % of the images and {percent(float(chance))} % as a mean over classes; guessing "
        f"among the tested classes, for {percent(float(chance))} %."
    )


def _failed(of: ClassFigures) -> list[int]:
    """The classes that surely fail, the lowest first: so few of their images are recognised that the true share is
    below `FAILS` with a confidence of 97.5 %."""
    high = at_most(of.right, of.tested, SURE)
    return [c for c in _lowest_first(of) if high[c] < FAILS]


def _failing(of: ClassFigures, linked: Callable) -> Html:
    """The classes that surely fail."""
    order, fails = _lowest_first(of), _failed(of)
    if not fails:
        low = of.recall[order].mean() - LOWER
        lowest = [f"{linked([c])} ({_recognised(of, c)})" for c in order[:3] if of.recall[c] < low]
        more = f" The lowest: {', '.join(lowest)}." if lowest else ""
        return Html(
            f"No class surely fails: for none is it certain that fewer than half of its images are recognised.{more}"
        )
    more = f" and {len(fails) - NAMED:,} more" if len(fails) > NAMED else ""
    verb = "class surely fails" if len(fails) == 1 else "classes surely fail"
    named = ", ".join(f"{linked([c])} ({_recognised(of, c)})" for c in fails[:NAMED])
    return Html(
        f"<b>{len(fails):,} {verb}</b>: fewer than half of the images are recognised, whatever the luck of the draw: "
        f"{named}{more}."
    )


def _lowest_first(of: ClassFigures) -> list[int]:
    """The classes with test images by their recall; of the same recall the surest first."""
    return [c for c in np.lexsort((of.high, of.recall)).tolist() if of.tested[c]]


def _recognised(of: ClassFigures, c: int) -> str:
    return f"{of.right[c]:,} of {of.tested[c]:,}, {percent(float(of.recall[c]), 0)} %"


def _uncertain(of: ClassFigures, linked: Callable) -> Html:
    """The classes of which the test images say little."""
    lacking, few = np.flatnonzero(of.tested == 0), np.flatnonzero((of.tested > 0) & (of.tested < TOO_FEW))
    little = few[~np.isin(few, _failed(of))]
    said = []
    for classes, words in ((lacking, "no test image: nothing is known"),
                           (little, f"fewer than {TOO_FEW} test images: the figures say little")):  # fmt: skip
        if len(classes):
            more = f" and {len(classes) - NAMED:,} more" if len(classes) > NAMED else ""
            number = "1 class has" if len(classes) == 1 else f"{len(classes):,} classes have"
            said.append(f"{number} {words} ({linked(classes[:NAMED].tolist())}{more}).")
    return Html(" ".join(said))


def _more_tests(of: ClassFigures) -> list[str]:
    """Whether there are too few test images to say much."""
    right, number = int(of.right.sum()), int(of.tested.sum())
    low, high = (float(bound) for bound in wilson(right, number))
    if high - low <= WIDE:
        return []
    return [
        f"Test on more photographs: {number:,} are few, the true share lies anywhere between {percent(low, 0)} and "
        f"{percent(high, 0)} %. A few hundred, of every class at least {TOO_FEW}, would tell."
    ]


def _labels(run: RunContent, found: Predictions, worst: str) -> Html:
    """Which images to check."""
    rows = shown.worst(found.labels, found.top[0], found.confidence[0])
    if not rows:
        return Html()
    number = "the mistake" if len(rows) == 1 else f"the {len(rows)} mistakes"
    return Html(
        f"Check the labels of {link(worst, f'{number} that the model is surest of')}: where the model is sure and "
        f"wrong, the label may be the mistake.{_suspicious(run, found, rows)}"
    )


def _suspicious(run: RunContent, found: Predictions, rows: Sequence[int]) -> str:
    """Which mistakes resemble training images of the answered class only: their labels are the most doubtful."""
    alike = [row for row in rows if row in galleries.resembling(found)]
    if not alike:
        return ""
    names = ", ".join(f"<code>{text(run.names.of_test(row))}</code>" for row in alike[:WANTED])
    more = f" and {len(alike) - WANTED} more" if len(alike) > WANTED else ""
    return (
        f" Begin with {names}{more}: all training images that look most like {'it' if len(alike) == 1 else 'them'} "
        "belong to the class that the model named."
    )


def _images(of: ClassFigures, linked: Callable) -> list[Html]:
    """Which classes need images, and which have enough and are recognised badly all the same."""
    bound = float(of.right.sum() / of.tested.sum())
    high = at_most(of.right, of.tested, SURE)
    lowest = [c for c in _lowest_first(of) if of.tested[c] >= TOO_FEW and high[c] < bound]
    small = [c for c in lowest if of.training[c] < FEW_TRAINING][:WANTED]
    large = [c for c in lowest if of.training[c] >= FEW_TRAINING][:WANTED]
    said = []
    if small:
        number = f"fewer than {FEW_TRAINING} training images"
        words = "it has" if len(small) == 1 else "they have"
        said.append(Html(f"Collect images of {linked(small)}: {words} {number}, and lower accuracy than the others."))
    if large:
        words = "its accuracy is" if len(large) == 1 else "their accuracy is"
        said.append(Html(
            f"Look at {linked(large)}: {words} lower than that of the others, although there are {FEW_TRAINING} "
            "training images or more. Do the pictures show what tells such classes apart, and are the labels right?"
        ))  # fmt: skip
    return said


def _pair(run: RunContent, found: Predictions, gallery_of: Callable) -> Html:
    """The pair that is confused most."""
    pair = shown.surest(shown.pairs(found.labels, found.top[0], run.facts.num_classes))
    if pair is None:
        return Html()
    return Html(
        f"Look at {link(gallery_of(pair), pairs.words(run, pair))}: {pair.images:,} of {pair.of:,} images are taken "
        "for the other class. Can people tell them apart?"
    )


def calibration(found: Predictions) -> str:
    """Whether the probabilities are too high or too low, on the whole; empty where they are neither."""
    sure, right = float(found.confidence[0].mean()), float((found.top[0] == found.labels).mean())
    if abs(sure - right) <= TOO_SURE:
        return ""
    much = "too sure of itself" if sure > right else "less sure than it could be"
    return (
        f"The model is {much}: its predictions have a mean probability of {percent(sure, 0)} %, and "
        f"{percent(right, 0)} % are right."
    )


def _temperature(found: Predictions) -> Html:
    """What to do about probabilities that are too high or too low."""
    said = calibration(found)
    if not said:
        return Html()
    return Html(
        f"{said} A temperature corrects the probabilities and leaves the predicted classes as they are: pass "
        "<code>--temperature=val</code> to predict, evaluate and export. It needs a val split: "
        "<code>--config.data.val_share=0.1</code> splits one off in training."
    )
