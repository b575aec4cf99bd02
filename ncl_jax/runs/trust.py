"""How far a run's answers can be trusted: what prediction sets, the mix of classes and known-ness are computed with.

It is made when it is first asked for and kept in the run's directory, so that the data may go.
"""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from ncl_jax.config.plan import embedder
from ncl_jax.data.dataset import Facts
from ncl_jax.evaluation import priors
from ncl_jax.evaluation.temperature import fit_temperature
from ncl_jax.models import shapes_of
from ncl_jax.runs.data import same_data
from ncl_jax.runs.embeddings import embed
from ncl_jax.runs.held_out import HeldOut, held_out, out_of_fold
from ncl_jax.runs.restore import Loaded
from ncl_jax.runtime import arrays
from ncl_jax.runtime.arrays import Wanted
from ncl_jax.runtime.files import write_bytes
from ncl_jax.trust import known as knownness
from ncl_jax.trust import mix
from ncl_jax.trust.known import Known

MOST_BYTES = 2**31  # of either file's arrays
ENSEMBLE = -1  # the expert's number that stands for all of them
SOURCES = ("out-of-fold scores", "val split")
_CALIBRATION = {
    "about": Wanted(np.int64, 1, -1), "true": Wanted(np.float64, 1, 0, 1 + 1e-6), "labels": Wanted(np.int32, 1, 0),
    "means": Wanted(np.float64, 1, 0, 1 + 1e-6), "temperature": Wanted(np.float64, 1, 1e-6, 1e6),
}  # fmt: skip
_KNOWN = {
    "about": Wanted(np.int64, 1, 0), "means": Wanted(np.float32, 2, -1e30, 1e30),
    "whitening": Wanted(np.float32, 2, -1e30, 1e30), "distances": Wanted(np.float32, 1, 0, 1e30),
}  # fmt: skip


class Calibration(NamedTuple):
    """What n images that the classifier has not seen say of its probabilities; under the training prior."""

    true: np.ndarray  # float64 [n]: the probability of each image's class
    labels: np.ndarray  # int [n]
    means: np.ndarray  # float64 [C]: the mean of the images' probabilities
    temperature: float  # that fits them
    source: str  # of `SOURCES`


def train_prior(facts: Facts) -> np.ndarray:
    """The shares of the classes among the training images, float64 `[C]`."""
    return priors.read("train", facts.class_counts)


def probabilities(scores: np.ndarray, temperature: float, facts: Facts, power: float) -> np.ndarray:
    """The probabilities `[B, C]` under the training prior of raw scores; `power`: what they are meant for, see
    `priors.own`."""
    moved = priors.log_ratio(train_prior(facts), priors.own(facts.class_counts, power))
    return softmax(np.asarray(scores, np.float64) / temperature + moved, axis=-1)


def source_prior(found: Calibration, facts: Facts) -> np.ndarray:
    """The shares that an estimate of the mix starts from, float64 `[C]`: the mean probabilities of held-out images,
    which contain any bias that is left; with few such images mostly those of training."""
    shares = len(found.labels) * found.means + mix.PSEUDO * train_prior(facts)
    return shares / shares.sum()


def make_calibration(found: HeldOut, facts: Facts, power: float) -> Calibration:
    """Fits the temperature of held-out scores and takes what is needed of their probabilities."""
    counts = np.bincount(found.labels, minlength=facts.num_classes)
    adjust = priors.log_ratio(counts / counts.sum(), priors.own(facts.class_counts, power))
    temperature = fit_temperature(found.logits, found.labels, adjust)
    table = probabilities(found.logits, temperature, facts, power)
    true = table[np.arange(len(table)), found.labels]
    return Calibration(true, found.labels, table.mean(0), temperature, found.source)


def calibration(loaded: Loaded, expert: int | None) -> Calibration:
    """The calibration of a run's ensemble or of one expert.

    Raises:
      DataError: there are no images to calibrate on, see `held_out.held_out`.
    """
    return kept_calibration(loaded, expert) or _made(loaded, expert, held_out(loaded, expert))


def kept_calibration(loaded: Loaded, expert: int | None) -> Calibration | None:
    """As `calibration`, without the data: what was kept, or from out-of-fold scores; None where there is neither."""
    about = _about(loaded, expert)
    kept = _read(loaded.directory.calibration, _CALIBRATION)
    if kept and kept["about"][:2].tolist() == about and _fits(kept, loaded.plan.facts):
        source = SOURCES[int(kept["about"][2])]
        return Calibration(kept["true"], kept["labels"], kept["means"], float(kept["temperature"][0]), source)
    found = out_of_fold(loaded, expert)
    return found and _made(loaded, expert, found)


def _about(loaded: Loaded, expert: int | None) -> list[int]:
    return [loaded.step, ENSEMBLE if expert is None else expert]


def _made(loaded: Loaded, expert: int | None, found: HeldOut) -> Calibration:
    """The calibration by held-out scores, which is kept."""
    made = make_calibration(found, loaded.plan.facts, loaded.plan.prior_power())
    content = {
        "about": np.array([*_about(loaded, expert), SOURCES.index(made.source)]),
        "true": made.true, "labels": made.labels, "means": made.means, "temperature": np.array([made.temperature]),
    }  # fmt: skip
    if expert is None:
        _keep(loaded, loaded.directory.calibration, content)
    return made


def _fits(kept: Mapping[str, np.ndarray], facts: Facts) -> bool:
    """Whether the arrays are of a run of these classes."""
    labels, about = kept["labels"], kept["about"]
    sizes = len(kept["true"]) == len(labels) > 0 and len(kept["means"]) == facts.num_classes
    return bool(
        sizes and labels.max() < facts.num_classes and len(about) == 3 and 0 <= about[2] < len(SOURCES)
        and len(kept["temperature"]) == 1
    )  # fmt: skip


def known(loaded: Loaded, training: tuple[np.ndarray, np.ndarray] | None = None) -> Known:
    """What the known-ness of images is measured with, of a run's training images: of their embeddings and labels, where
    these are there already.

    Raises:
      DataError: it was not kept, and the data is not what the run was trained on.
    """
    facts = loaded.plan.facts
    kept = _read(loaded.directory.known, _KNOWN)
    if kept and kept["about"].tolist() == [loaded.step] and _is_whole(kept, loaded):
        return Known(kept["means"], kept["whitening"], np.sort(kept["distances"]))
    if training is None:
        data = same_data(loaded.config, loaded.directory)
        training = embed(loaded.plan, loaded.variables, data.train, "train"), data.train.labels
    made = knownness.fit(*training, facts.num_classes)
    _keep(loaded, loaded.directory.known, {"about": np.array([loaded.step]), **made._asdict()})
    return made


def _is_whole(kept: Mapping[str, np.ndarray], loaded: Loaded) -> bool:
    """Whether the arrays are of embeddings of the run's size and of its classes."""
    plan, side = loaded.plan, loaded.plan.preprocessing.size
    if plan.trunk is not None:
        size = shapes_of(plan.trunk, plan.facts.image_shape)[0].shape[-1]
    else:
        images = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
        size = jax.eval_shape(embedder(plan), loaded.variables, images).shape[-1]
    return kept["means"].shape == (plan.facts.num_classes, size) and kept["whitening"].shape == (size, size)


def _read(path: pathlib.Path, wanted: Mapping[str, Wanted]) -> dict[str, np.ndarray] | None:
    try:
        return arrays.read(path, wanted, MOST_BYTES)
    except Exception:  # whatever bytes provoke that are no such file: it is made again
        return None


def _keep(loaded: Loaded, path: pathlib.Path, content: Mapping[str, np.ndarray]) -> None:
    """Keeps what is known of a run's newest checkpoint: another one's would take its place."""
    if loaded.step != loaded.directory.last_step():
        return
    with contextlib.suppress(OSError):  # a directory that cannot be written is none the worse for it
        write_bytes(path, arrays.packed(content))
