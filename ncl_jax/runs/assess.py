"""How far a run's answers can be trusted, measured on its test images: what its page and `images.csv` show."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ncl_jax.data.dataset import Data
from ncl_jax.errors import DataError, Interrupted, one_line
from ncl_jax.evaluation import priors
from ncl_jax.evaluation.predictor import embedding
from ncl_jax.runs import trust
from ncl_jax.runs.embeddings import embed
from ncl_jax.runs.held_out import scores_of
from ncl_jax.runs.restore import Loaded
from ncl_jax.runtime import console
from ncl_jax.trust import known as knownness
from ncl_jax.trust import selective, sets

COVERAGE, LEVEL = 0.9, 0.05  # of the prediction sets; at which images are unlike training
FEWEST = round(1 / (1 - COVERAGE)) - 1  # calibration images of a class without which nothing can be promised for it
MOST = 2**26  # test images times classes


class Assessed(NamedTuple):
    """What is known of the test images' answers."""

    figures: dict[str, Any]  # `trust` of `results.json`
    sets: np.ndarray  # bool [N, C]: the prediction sets
    known: np.ndarray | None  # float32 [N]: p-values; None where the training images have no cached features


def assess(loaded: Loaded, data: Data, features: Data | None = None) -> Assessed | None:
    """Measures a run on its test images: a run's end does not fail where it cannot.

    Args:
      loaded: the run, at the step that its results are of.
      data: what it was trained on and evaluated on.
      features: the same with the features of a frozen backbone for images, where they are there already.

    Returns:
      None where there are no images to calibrate on, or too many classes and images.
    """
    calibrated = loaded.directory.out_of_fold.exists() or "val" in data.others  # not the evaluated split
    if jax.process_count() > 1 or not calibrated or len(data.test) * data.facts.num_classes > MOST:
        return None
    try:
        return _assess(loaded, data, features)
    except Interrupted:
        raise
    except DataError as error:
        if loaded.directory.out_of_fold.exists():
            console.say(f"note: the report has no prediction sets ({one_line(error)})")
        return None


def _assess(loaded: Loaded, data: Data, features: Data | None) -> Assessed:
    facts, labels = loaded.plan.facts, np.asarray(data.test.labels)
    found, prior = trust.calibration(loaded, None), trust.train_prior(facts)
    own = priors.own(facts.class_counts, loaded.plan.prior_power())
    seen = features if features is not None and loaded.plan.on_features else data
    scores = scores_of(loaded, seen.test, facts.split)
    table = trust.probabilities(scores, found.temperature, facts, loaded.plan.prior_power())
    groups = facts.groups()["papers"]
    rules = {promise: sets.calibrate(found.true, found.labels, prior, COVERAGE, promise) for promise in sets.PROMISES}
    of_images = {promise: sets.predict_sets(rule, table) for promise, rule in rules.items()}
    known = _known(loaded, data, features)
    counts = np.bincount(found.labels, minlength=facts.num_classes)
    return Assessed(
        {
            "source": found.source, "number": len(found.labels), "coverage": COVERAGE,
            "range": list(sets.coverage_range(len(found.labels), COVERAGE)),
            "sets": {promise: sets.describe(chosen, labels, groups) for promise, chosen in of_images.items()},
            "curve": sets.curve((found.true, found.labels), (table, labels), prior),
            "without_promise": int((counts < FEWEST).sum()),
            "selective": _selective(table, own / np.maximum(prior, 1e-12), labels, groups),
            "unlike": None if known is None else {"level": LEVEL} | _shares(known < LEVEL, labels, groups),
        },
        of_images["marginal"], known,
    )  # fmt: skip


def _known(loaded: Loaded, data: Data, features: Data | None) -> np.ndarray | None:
    """The p-values of the test images, of a run with a frozen backbone: others would look at all training images."""
    if loaded.plan.trunk is None:
        return None
    if features is None:
        train = embed(loaded.plan, loaded.variables, data.train, "train")
        test = embed(loaded.plan, loaded.variables, data.test, data.facts.split)
    else:
        train, test = (np.asarray(embedding(split.images[:, 0][None])) for split in (features.train, features.test))
    return knownness.p_values(trust.known(loaded, (train, np.asarray(data.train.labels))), test)


def _selective(
    table: np.ndarray, ratio: np.ndarray, labels: np.ndarray, groups: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """By the probabilities that the run's answers are meant for; `ratio [C]` moves `table` to their prior."""
    own = table * ratio
    own /= own.sum(1, keepdims=True)
    right = own.argmax(1) == labels
    return selective.selective(own.max(1), right, {name: mask[labels] for name, mask in groups.items()})


def _shares(refused: np.ndarray, labels: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """The share of the images, and of each group's."""
    masks = {"all": np.ones(len(labels), bool)} | {name: mask[labels] for name, mask in groups.items()}
    return {name: float(refused[mask].mean()) if mask.any() else None for name, mask in masks.items()}
