"""Scores of images that a run's classifier has not seen, by which its confidence is measured: out-of-fold scores of all
training images where they are kept, otherwise those of the val split."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from ncl_jax.data import dataset
from ncl_jax.data.feeds.feed import over
from ncl_jax.data.sources.files import state_of
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.evaluation.predictor import combine
from ncl_jax.runs import folds
from ncl_jax.runs.data import same_data
from ncl_jax.runs.restore import Loaded
from ncl_jax.runs.trunk import evaluated

MOST_SHARED = 0.5  # of the val images may be training images


class HeldOut(NamedTuple):
    """Raw scores of n images."""

    logits: np.ndarray  # float64 [n, C], of the ensemble or of one expert
    labels: np.ndarray  # int [n]
    source: str  # "out-of-fold scores" or "val split"


def held_out(loaded: Loaded, expert: int | None) -> HeldOut:
    """The scores of a run's images; `expert`: its number, None for the ensemble.

    Raises:
      DataError: there are none, or the val images are training images.
    """
    kept = out_of_fold(loaded, expert)
    if kept is not None:
        return kept
    found = of_val(loaded, expert)
    if found is None:
        raise DataError(
            f"{loaded.directory} has no images to calibrate on, which must not be those that it was trained on: train "
            "with --folds=5 (a frozen backbone's heads) or --config.data.val_share=0.1, which holds a part of the "
            "training images out"
        )
    return found


def out_of_fold(loaded: Loaded, expert: int | None) -> HeldOut | None:
    """The scores by heads that have not seen an image; None where a run has none of this checkpoint."""
    facts = loaded.plan.facts
    found = folds.read(loaded.directory)
    if found is None or found["about"][1] != loaded.step:
        return None
    logits, labels = found["logits"], found["labels"]
    if logits.shape[1:] != (loaded.plan.num_experts, facts.num_classes) or labels.max() >= facts.num_classes:
        return None
    seen = np.isfinite(logits).all((1, 2))  # the only image of a class is in every fold's training part
    scores = combine(logits[seen].swapaxes(0, 1), expert).astype(np.float64)
    return HeldOut(scores, labels[seen], "out-of-fold scores") if seen.any() else None


def of_val(loaded: Loaded, expert: int | None) -> HeldOut | None:
    """The scores of the val split; None where there is none. Raises DataError."""
    facts = loaded.plan.facts
    data = same_data(loaded.config, loaded.directory)
    val = data.splits().get("val")
    if val is None:
        return None
    if loaded.config.data.skip_unreadable:
        val = dataset.readable(val, facts.class_names, "val")[0]
    check_apart(data.train, val)
    return HeldOut(scores_of(loaded, val, "val", expert), val.labels, "val split")


def scores_of(loaded: Loaded, split: Split, name: str, expert: int | None = None) -> np.ndarray:
    """The raw scores of the images of a split, float64 `[N, C]`; `name`: of the split. Raises DataError."""
    plan = loaded.plan
    assert plan.mesh is not None
    model, feed, variables = evaluated(plan, loaded.variables, split, name)

    def scores(batch, variables):
        return combine(model.logits(variables, batch.images[:, 0]), expert), batch.valid

    batches = jax.device_get(over(feed, plan.mesh, scores)(variables))
    logits = np.concatenate([rows if valid is None else rows[valid] for rows, valid in batches])
    return logits.astype(np.float64)


def check_apart(train: Split, val: Split) -> None:
    """Raises DataError where images of the val split are training images: what is fitted on them promises too much."""
    known = set(_identities(train)) - {None}  # files that cannot be read
    shared = sum(identity in known for identity in _identities(val))
    if shared > MOST_SHARED * len(val):
        raise DataError(
            f"{shared} of {len(val)} images of the val split are training images, so that nothing can be calibrated on "
            "them: pass other files for val, or leave it out and train with --config.data.val_share=0.1"
        )


def _identities(split: Split) -> list[Any]:
    """What tells the images of a split from others: the content of a file, the pixels of an array; None: not known."""
    images = split.images
    if hasattr(images, "names"):
        states = [state_of(pathlib.Path(images.root) / str(name)) for name in images.names]
        return [None if state is None else (state.size, state.digest) for state in states]
    if isinstance(images, np.ndarray):
        return [hash(image.tobytes()) for image in images]
    return []
