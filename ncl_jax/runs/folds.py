"""Out-of-fold scores: every training image scored by heads that have not seen it.

With few images in a class a validation split says nothing of it; K sets of heads on a frozen backbone's features take
seconds, and score all training images.
"""

import contextlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from ncl_jax.config import build, loading
from ncl_jax.config import plan as plans
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.data.sources import groups
from ncl_jax.data.sources.groups import ALWAYS
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.runs import class_vectors, heads
from ncl_jax.runs.setup import Run, compile_step, is_first
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
    if folds and not build.on_features(config):
        raise ConfigError(
            f"--folds={folds} needs heads on a frozen backbone (model.freeze=all, model.adapters=none): others would "
            "train for hours; --config.data.val_share=0.1 holds images out instead"
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
    run.log.print(f"training {folds} sets of heads for out-of-fold scores")
    by_text = run.config.model.head_start == "text"
    vectors = class_vectors.of_run(run.directory, run.progress) if by_text else None
    write(run.directory, run.config, plan, run.inputs, about, extend, between, vectors)
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
    vectors: ClassVectors | None = None,
) -> None:
    """Trains K sets of heads and keeps their scores in the run's directory (`RunDir.out_of_fold`): `logits` float32
    `[N, E, C]`, NaN for images of the fold `ALWAYS`, `labels` and `folds` int `[N]`, `about`.

    Args:
      directory: of the run.
      config, plan: of the run.
      data: with features for images.
      about: K, and the steps of the run.
      extend: epochs beyond the configuration's.
      between: see `setup.prepare`.
      vectors: that the heads start from, see `heads.start`.
    """
    logits, of_image = scores(config, plan, data, about[0], extend, between, vectors)
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
    vectors: ClassVectors | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The out-of-fold scores, float32 `[N, E, C]`, and the fold of every training image, int [N], see `assign`; images
    of the fold `ALWAYS` have NaN. Arguments: see `write`."""
    train = data.train
    of_image = assign(train.labels, data.facts.num_classes, folds, data.groups.get("train"))
    logits = np.full((len(train), plan.num_experts, data.facts.num_classes), np.nan, np.float32)
    for fold in range(folds):
        held = of_image == fold
        if held.any():
            logits[held] = _scores(config, plan, data, held, extend, vectors)
            between("training heads for out-of-fold scores, which begins again")
    return logits, of_image


def _scores(config, plan, data, held, extend, vectors) -> np.ndarray:
    """The scores `[n, E, C]` of the test views of the images that are held out, by heads of all others."""
    rest = Split(data.train.images[~held], data.train.labels[~held])
    counts = np.bincount(rest.labels, minlength=data.facts.num_classes)
    facts = data.facts._replace(class_counts=tuple(counts.tolist()))
    config = config.copy_and_resolve_references()
    config.optim.batch_size = min(config.optim.batch_size, len(rest))
    own = build.make_training_plan(config, facts, plan.mesh)
    rest_of = data._replace(facts=facts, train=rest)
    state = trained(own, rest_of, config.model.head_start == "class_mean", extend, vectors)
    predict = jax.jit(plans.predictor(own, on_features=True).logits)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return np.asarray(predict(variables, data.train.images[held][:, 0])).swapaxes(0, 1)


def trained(
    plan: TrainingPlan, data: dataset.Data, means: bool, extend: int = 0, vectors: ClassVectors | None = None
) -> steps.TrainState:
    """The state after all epochs of a run's plan on features; nothing of it is written."""
    assert plan.mesh is not None
    place, initial = replicated(plan.mesh), lambda: plans.initial_state(plan)
    state = startup.run_once(initial, plans.state_places(plan, jax.eval_shape(initial)))
    state = heads.start(plan, state, data.train.images, data.train.labels, means, vectors)
    keys = jax.jit(plans.keys, static_argnums=0, out_shardings=place)(plan.seed)
    feed = loading.training_feed(plan, data, keys.order)
    train_step = plans.train_step(plan, cut=feed.cut)
    length = plan.steps_per_epoch
    zeros = steps.zero_history(train_step, feed.take, state, keys.step, feed.like(), length)
    history = jax.device_put(zeros, place)
    advance = compile_step(train_step, feed, plan.steps_per_call, place, (state, history, keys.step))
    left = length * (len(plan.learning_rates) + extend)
    with contextlib.closing(feed):
        for source, served in feed.batches(0):
            while served and left:
                state, history, _, done = advance(state, history, keys.step, source, min(served, left))
                served, left = served - done, left - done
            if not left:
                return state
    raise AssertionError("a data loader never ends")
