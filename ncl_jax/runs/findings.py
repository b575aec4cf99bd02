"""What comparing the images of a data set with each other says of it: near duplicates, doubtful labels, outliers.

With a frozen backbone its features are compared; otherwise only pixels, which say nothing of labels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from scipy.special import softmax

from ncl_jax.config import backbone, build
from ncl_jax.data.dataset import Data
from ncl_jax.data.images.examine import Examined
from ncl_jax.data.longtail import CONVENTIONS
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import baselines, temperature
from ncl_jax.models.named import DEFAULT, NAMED
from ncl_jax.report.findings import Findings
from ncl_jax.runs import pretrained, trunk
from ncl_jax.runs.next_steps import quoted
from ncl_jax.trust import duplicates, labels, left_out, outliers
from ncl_jax.trust.neighbours import nearest, unit

MOST_IMAGES = 60_000  # of a split that are compared with each other: more would take many minutes
MOST_SCORES = 10**8  # training images times classes: more would not fit in memory
OF_TEMPERATURE = 5000  # images that the temperature is fitted on
NEAREST = 2  # images of a class that are shown beside a suspected label


class Compared(NamedTuple):
    """The readable images of a split."""

    rows: np.ndarray  # int [N]
    small: np.ndarray  # uint8 [N, S, S], grey
    labels: np.ndarray  # int [N]
    features: np.ndarray  # float32 [N, D]


def find(
    config: ml_collections.ConfigDict, data: Data, examined: dict[str, Examined], command: Sequence[str] = ()
) -> Findings:
    """Compares the images of train and of the split that is evaluated.

    Args:
      config: of a run.
      data: its data.
      examined: the images of each split, by its name.
      command: the value of `--config` and the arguments after it, where they are known.
    """
    none = np.zeros(0, int)
    empty = duplicates.Pairs(none, none, np.zeros(0), np.zeros(0))
    if (number := max(len(data.train), len(data.test))) > MOST_IMAGES:
        text = (
            f"near duplicates, labels and outliers were not looked for: {number:,} images are more than {MOST_IMAGES:,}"
        )
        return Findings(empty, empty, "nothing", notes=[text])
    rows = {name: np.flatnonzero([bool(content) for content in part.contents]) for name, part in examined.items()}
    if not all(len(rows[name]) for name in ("train", data.facts.split)):
        return Findings(empty, empty, "nothing")
    features, note = of_backbone(config, data, rows, command)
    train, test = (
        _compared(data, examined, name, rows[name], features.get(name)) for name in ("train", data.facts.split)
    )
    near = nearest(train.features, train.features, outliers.NEIGHBOURS, same=True)
    alone = not features
    repeated, limit = duplicates.within(*near, train.small, alone)
    leaked = duplicates.between(train.features, test.features, train.small, test.small, limit, alone)
    found = Findings(
        leaked._replace(first=train.rows[leaked.first], second=test.rows[leaked.second]),
        _of_two_files(repeated, train.rows, data.train.images),
        f"the features of {config.model.pretrained} and their pixels" if features else "their pixels alone",
        notes=[note] if note else [],
    )
    if not features:
        return found
    if len(leaked.first):
        found = found._replace(accuracy=_accuracy(train, test, data.facts.num_classes, leaked.second))
    far, means = outliers.outliers(near[1])
    found = found._replace(outliers=train.rows[far], distances=means[far] / max(float(np.median(means)), 1e-12))
    return _of_labels(found, data, train, near)


def _of_two_files(pairs: duplicates.Pairs, rows: np.ndarray, images: Any) -> duplicates.Pairs:
    """The pairs by their rows in the split, without those of one file that a list names twice."""
    first, second, names = rows[pairs.first], rows[pairs.second], getattr(images, "names", None)
    kept = np.ones(len(first), bool) if names is None else np.asarray(names[first] != names[second], bool)
    return duplicates.Pairs(first[kept], second[kept], pairs.distances[kept], pairs.differences[kept])


def of_backbone(
    config: ml_collections.ConfigDict, data: Data, rows: Mapping[str, np.ndarray], command: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], str]:
    """The features of a frozen backbone, from the cache or computed now, or why there are none.

    Args:
      config: of a run.
      data: its data.
      rows: the images that can be read, int `[N]`, of train and of the split that is evaluated.
      command: as for `find`.

    Returns:
      Features float32 `[N, D]` by the split's name, and nothing; or nothing, and the reason.
    """
    what = "labels and outliers need the features of a pretrained backbone"
    if not build.is_frozen(config):
        text = backbone.on_features(command[0]) if command else ""
        words = map(quoted, [f"--config={text}", *command[1:]]) if text else [f"--config=...,backbone={DEFAULT}"]
        return {}, f"{what}: {backbone.installing(NAMED[DEFAULT])}ncl-jax inspect {' '.join(words)}"
    plan = build.make_plan(config, data.facts)
    try:
        start = pretrained.load(config, plan)
    except ConfigError as error:
        return {}, f"{what}: {error}"
    assert start is not None
    own = build.trunk(config, build.operations(config, None))
    plan = dataclasses.replace(plan, trunk=own, loading=plan.loading._replace(cache=config.data.cache))
    readable = {name: data.splits()[name].take(rows[name]) for name in ("train", data.facts.split)}
    return {name: trunk.test_views(plan, start.trunk, split, name) for name, split in readable.items()}, ""


def _compared(data, examined, name, rows, features) -> Compared:
    split, small = data.splits()[name], examined[name].small[rows]
    features = duplicates.pixel_features(small) if features is None else features
    return Compared(rows, small, split.labels[rows], features)


def _accuracy(train, test, num_classes, leaked) -> tuple[float, float]:
    """Of ridge regression on the features, with and without the leaked images."""
    scores = baselines.ridge(train.features, train.labels, test.features, num_classes)
    return duplicates.leaks(scores.argmax(1) == test.labels, leaked)


def _of_labels(found: Findings, data: Data, train: Compared, near: tuple[np.ndarray, np.ndarray]) -> Findings:
    """Adds the labels that may be wrong."""
    number = data.facts.num_classes
    if len(train.labels) * number > MOST_SCORES:
        text = f"labels were not judged: {len(train.labels):,} images of {number:,} classes would not fit in memory"
        return found._replace(notes=[*found.notes, text])
    suspects = judge(train.features, train.labels, data.facts.groups(), near)
    counts = np.bincount(train.labels, minlength=number)
    return found._replace(
        suspects=suspects._replace(rows=train.rows[suspects.rows]),
        examples=examples(train.features, train.labels, train.rows, suspects),
        unjudged=np.flatnonzero(counts < labels.LEAST).tolist(),
    )


def judge(
    features: np.ndarray,
    of: np.ndarray,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    near: tuple[np.ndarray, np.ndarray],
) -> labels.Suspects:
    """The labels that may be wrong, see `labels.suspected`.

    Args:
      features: `[N, D]`.
      of: labels int `[N]`.
      groups: of the classes, see `Facts.groups`.
      near: rows and distances of each image's nearest other ones, `[N, K]`.
    """
    masks = np.stack(list(groups[CONVENTIONS[0]].values()))
    return labels.suspected(probabilities(features, of, masks.shape[1]), *near, of, masks.argmax(0))


def probabilities(features: np.ndarray, of: np.ndarray, num_classes: int) -> np.ndarray:
    """The probabilities `[N, C]` under a uniform prior of images by ridge regression without each of them, calibrated.

    Args:
      features: `[N, D]`.
      of: labels int `[N]`.
      num_classes: C.
    """
    counts, scores = np.bincount(of, minlength=num_classes), left_out.scores(features, of, num_classes)
    rows = np.flatnonzero(counts[of] > 1)  # the score of a class's only image for its class says nothing
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), OF_TEMPERATURE)).astype(int)]
    if not len(rows):
        return softmax(scores, axis=1)
    prior = np.log(np.maximum(counts, 1) / len(of))
    return softmax(scores / temperature.fit_temperature(scores[rows], of[rows], prior), axis=1)


def examples(features: np.ndarray, of: np.ndarray, rows: np.ndarray, suspects: labels.Suspects) -> np.ndarray:
    """The nearest `NEAREST` images of the given and of the suggested class beside each suspected label, int
    `[S, 2 * NEAREST]` of `rows`; -1 where a class has fewer."""
    found = np.full((len(suspects.rows), 2 * NEAREST), -1)
    known = unit(features)
    for index, (row, suggested) in enumerate(zip(suspects.rows, suspects.suggested, strict=True)):
        for place, label in enumerate((of[row], suggested)):
            others = np.flatnonzero((of == label) & (np.arange(len(of)) != row))
            order = others[np.argsort(-(known[others] @ known[row]), kind="stable")][:NEAREST]
            found[index, place * NEAREST : place * NEAREST + len(order)] = rows[order]
    return found
