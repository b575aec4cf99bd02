"""Out-of-fold scores: every training image scored by heads, and adapters if there are any, that have not seen it.

With few images in a class a validation split says nothing of it; K sets of heads on a frozen backbone's features take
seconds, and score all training images. K sets of adapters take as long as K runs.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from ncl_jax.config import build, loading
from ncl_jax.config import plan as plans
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.data.feeds.feed import over
from ncl_jax.data.sources import groups
from ncl_jax.data.sources.groups import ALWAYS
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.runs import class_vectors, heads, trunk
from ncl_jax.runs.setup import Run, compile_step, given, is_first
from ncl_jax.runtime import arrays, startup
from ncl_jax.runtime.arrays import Wanted
from ncl_jax.runtime.devices import replicated
from ncl_jax.runtime.files import write_bytes
from ncl_jax.storage.directory import RunDir
from ncl_jax.training import steps

MOST = 100  # folds
MOST_BYTES = 2**32  # of the scores
WANTED = {
    "logits": Wanted(np.float32, 3), "labels": Wanted(np.int32, 1, 0), "folds": Wanted(np.int32, 1, ALWAYS),
    "about": Wanted(np.int64, 1, 0),
}  # fmt: skip


def check(config: ml_collections.ConfigDict, folds: int) -> None:
    """Raises ConfigError where there can be no folds."""
    if folds and not build.is_frozen(config):
        raise ConfigError(
            f"--folds={folds} needs heads on a frozen backbone (model.freeze=all): others would train for hours; "
            "--config.data.val_share=0.1 holds images out instead"
        )
    if folds and config.run.patience:
        raise ConfigError(
            f"--folds={folds} and run.patience={config.run.patience}: the folds' heads would train longer than the run "
            "that stops early; set one of them to 0"
        )
    if folds and config.teacher.run:
        raise ConfigError(f"--folds={folds}: a student has none, because its teacher has seen all images; leave it out")
    if folds < 0 or folds == 1 or folds > MOST:
        raise ConfigError(f"--folds={folds} must be from 2 to {MOST}, or 0 for none")


def are_there(directory: RunDir, folds: int, step: int | None = None) -> bool:
    """Whether the scores of this number of folds, of a run of these steps, are kept in its directory already."""
    step = step if step is not None else (directory.read_results() or {}).get("step")
    found = read(directory)
    return found is not None and found["about"].tolist() == [folds, step]


def read(directory: RunDir) -> dict[str, np.ndarray] | None:
    """The scores that a run keeps, see `write`; None where there are none, or something else."""
    try:
        found = arrays.read(directory.out_of_fold, WANTED, MOST_BYTES)
    except Exception:  # whatever bytes provoke that are no such file: it is made again
        return None
    number = len(found["labels"])
    whole = number > 0 and len(found["about"]) == 2 and len(found["logits"]) == len(found["folds"]) == number
    return found if whole else None


def keep(run: Run, plan: TrainingPlan, folds: int, extend: int, between: Callable[[str], None]) -> None:
    """Writes the scores of a finished run, if they are not there; arguments as for `write`."""
    about = (folds, int(run.state.step))
    if are_there(run.directory, *about):
        return
    run.log.print(f"training {folds} sets of {'heads' if run.frozen is None else 'adapters'} for out-of-fold scores")
    by_text = run.config.model.head_start == "text"
    vectors = class_vectors.of_run(run.directory, run.progress) if by_text else None
    write(run.directory, run.config, plan, run.inputs, about, extend, between, run.frozen, vectors)
    run.log.print(f"out-of-fold scores: {run.directory.out_of_fold}")


def assign(labels: np.ndarray, num_classes: int, folds: int, of_group: np.ndarray | None = None) -> np.ndarray:
    """The fold of every image, int [N], stratified and always the same; `ALWAYS` for the only image of a class. Groups
    stay whole, see `groups.folds`."""
    if of_group is not None:
        return groups.folds(of_group, labels, num_classes, folds)
    generator = np.random.RandomState(0)  # the same in every NumPy
    result = np.full(len(labels), ALWAYS)
    for label in range(num_classes):
        rows = generator.permutation(np.flatnonzero(labels == label))
        first = generator.randint(folds)  # so that small classes do not all miss the same folds
        if len(rows) > 1:
            result[rows] = (first + np.arange(len(rows))) % folds
    return result


def write(
    directory: RunDir,
    config: ml_collections.ConfigDict,
    plan: TrainingPlan,
    data: dataset.Data,
    about: tuple[int, int],
    extend: int = 0,
    between: Callable[[str], None] = lambda doing: None,
    frozen: Any = None,
    vectors: ClassVectors | None = None,
) -> None:
    """Trains K sets of heads and keeps their scores in the run's directory (`RunDir.out_of_fold`): `logits` float32
    `[N, E, C]`, NaN for images of the fold `ALWAYS`, `labels` and `folds` int `[N]`, `about`.

    Args:
      directory: of the run.
      config, plan: of the run.
      data: as the experts see it: of heads alone with features for images.
      about: K, and the steps of the run.
      extend: epochs beyond the configuration's.
      between: see `setup.prepare`.
      frozen: the variables of the backbone in whose blocks the experts have adapters, on the devices; None: they see
        its features.
      vectors: that the heads start from, see `heads.start`.
    """
    logits, of_image = scores(config, plan, data, about[0], extend, between, frozen, vectors)
    content = {"logits": logits, "labels": data.train.labels, "folds": of_image, "about": np.array(about)}
    if is_first():
        with directory.writing():
            directory.calibration.unlink(missing_ok=True)  # by other images, or other folds
            write_bytes(directory.out_of_fold, arrays.packed(content))


def scores(
    config: ml_collections.ConfigDict,
    plan: TrainingPlan,
    data: dataset.Data,
    folds: int,
    extend: int = 0,
    between: Callable[[str], None] = lambda doing: None,
    frozen: Any = None,
    vectors: ClassVectors | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The out-of-fold scores, float32 `[N, E, C]`, and the fold of every training image, int [N], see `assign`; images
    of the fold `ALWAYS` have NaN. Arguments: see `write`."""
    train, features = data.train, features_of(config, plan, data, frozen)
    of_image = assign(train.labels, data.facts.num_classes, folds, data.groups.get("train"))
    logits = np.full((len(train), plan.num_experts, data.facts.num_classes), np.nan, np.float32)
    for fold in range(folds):
        held = of_image == fold
        if held.any():
            logits[held] = _scores(config, plan, data, held, extend, between, frozen, vectors, features)
    return logits, of_image


def features_of(config: ml_collections.ConfigDict, plan: TrainingPlan, data: dataset.Data, frozen: Any) -> np.ndarray:
    """The features `[N, 1 + V, D]` of the training images, where heads or their start are made of them; else empty
    ones. Arguments: see `write`."""
    if plan.on_features:
        return data.train.images
    if config.model.head_start == "class_mean":
        return trunk.of_training(plan, frozen, data).images
    return np.empty((len(data.train), 0), np.float32)


def _scores(config, plan, data, held, extend, between, frozen, vectors, features) -> np.ndarray:
    """The scores `[n, E, C]` of the test views of the images that are held out, by experts of all others."""
    rest = data.train.take(np.flatnonzero(~held))
    counts = np.bincount(rest.labels, minlength=data.facts.num_classes)
    facts = data.facts._replace(class_counts=tuple(counts.tolist()))
    config = config.copy_and_resolve_references()
    config.optim.batch_size = min(config.optim.batch_size, len(rest))
    own = build.make_training_plan(config, facts, plan.mesh)
    rest_of = data._replace(facts=facts, train=rest)
    state = started(own, config.model.head_start == "class_mean", features[~held], rest.labels, frozen, vectors)
    state = trained(own, rest_of, state, extend, between, frozen)
    return scored(own, state, data.train.take(np.flatnonzero(held)), frozen)


def started(
    plan: TrainingPlan,
    means: bool,
    features: np.ndarray,
    labels: np.ndarray,
    frozen: Any = None,
    vectors: ClassVectors | None = None,
) -> steps.TrainState:
    """The state at step 0; see `heads.start` and, of `frozen` and `vectors`, `write`."""
    assert plan.mesh is not None
    initial = lambda: plans.initial_state(plan)  # noqa: E731
    state = startup.run_once(initial, plans.state_places(plan, jax.eval_shape(initial)))
    state = state if frozen is None else heads.with_copies(state, frozen)
    return heads.start(plan, state, features, labels, means, vectors)


def trained(
    plan: TrainingPlan,
    data: dataset.Data,
    state: steps.TrainState,
    extend: int = 0,
    between: Callable[[str], None] = lambda doing: None,
    frozen: Any = None,
) -> steps.TrainState:
    """The state after all epochs of a run's plan; nothing of it is written. Arguments: see `write`."""
    assert plan.mesh is not None
    place, shared, length = replicated(plan.mesh), given(frozen), plan.steps_per_epoch
    keys = jax.jit(plans.keys, static_argnums=0, out_shardings=place)(plan.seed)
    with contextlib.closing(loading.training_feed(plan, data, keys.order)) as feed:
        train_step = plans.train_step(plan, cut=feed.cut)
        zeros = steps.zero_history(train_step, feed.take, state, keys.step, feed.like(), length, *shared)
        history = jax.device_put(zeros, place)
        advance = compile_step(train_step, feed, plan.steps_per_call, place, (state, history, keys.step), *shared)
        left = length * (len(plan.learning_rates) + extend)
        for source, served in feed.batches(0):
            while served and left:
                state, history, _, done = advance(state, history, keys.step, source, min(served, left))
                served, left = served - done, left - done
                between("training for out-of-fold scores, which begins again")
            if not left:
                return state
    raise AssertionError("a data loader never ends")


def scored(plan: TrainingPlan, state: steps.TrainState, split: Split, frozen: Any = None) -> np.ndarray:
    """The raw scores `[n, E, C]` of the test views of a split's images, or of their features."""
    assert plan.mesh is not None
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables |= {} if frozen is None else {"trunk": frozen}
    model = plans.predictor(plan, on_features=plan.on_features)
    scores = lambda batch, held: (model.logits(held, batch.images[:, 0]), batch.valid)  # noqa: E731
    with contextlib.closing(loading.test_feed(plan, split, "held-out")) as feed:
        batches = jax.device_get(over(feed, plan.mesh, scores)(variables))
    logits = [rows if valid is None else rows[:, valid] for rows, valid in batches]
    return np.concatenate(logits, 1).swapaxes(0, 1)
