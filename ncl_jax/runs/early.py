"""Early stopping: a run ends where its val split has not improved for `run.patience` epochs."""

from collections.abc import Callable
from typing import Any

import ml_collections

from ncl_jax.config import loading
from ncl_jax.config import plan as plans
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.step import make_evaluate
from ncl_jax.runs import computing, trunk
from ncl_jax.runs.setup import Run


def check(config: ml_collections.ConfigDict, data: dataset.Data) -> None:
    """Raises ConfigError where a run is to stop early and has no val split to stop by."""
    if config.run.patience and "val" not in data.others:  # where the run is evaluated on val it is the test set
        raise ConfigError(
            f"run.patience={config.run.patience} needs a val split, because test images must not be used to choose "
            "anything: --config.data.val_share=0.1 holds a part of the training images out, or set 0"
        )


def make_validate(plan: TrainingPlan, config: ml_collections.ConfigDict, data: dataset.Data, frozen: Any) -> Callable:
    """Makes `validate(variables) -> metrics.Evaluation` on the val split.

    Args:
      plan, config, data: of the run; the images as they are.
      frozen: the variables of the frozen backbone; None where each expert has its own.
    """
    assert plan.mesh is not None
    split = data.splits()["val"]
    if config.data.skip_unreadable and data.facts.split != "val":
        split = dataset.readable(split, data.facts.class_names, "val")[0]
    if plan.on_features:
        split = trunk.features(plan, frozen, split, "val", computing.Computing(plan, frozen))
    predictor = plans.predictor(plan, on_features=plan.on_features)
    return make_evaluate(predictor, loading.test_feed(plan, split, "val"), plan.mesh)


def mean_of_classes(run: Run) -> float:
    """The mean of the classes' accuracies on the val split."""
    assert run.validate is not None
    found = metrics.summarize(run.validate(run.variables).sums, run.facts.groups())["class_means"]
    return float(found["ensemble"]["accuracy"])


def validate(run: Run, epoch: int) -> None:
    """Notes in the run's record how good the state is on the val split after an epoch (from 1): by the mean of the
    classes, which the large ones do not decide."""
    if run.validate is None:
        return
    accuracy = mean_of_classes(run)
    best = run.progress.get("best_on_val") or {"accuracy": -1.0}
    if accuracy > best["accuracy"]:
        best = run.progress["best_on_val"] = {"epoch": epoch, "accuracy": accuracy}
    run.log.write("validation", {"epoch": epoch, "step": int(run.state.step), "class_means": accuracy})
    run.log.print(
        f"  val, mean of classes {100 * accuracy:.2f} % (best: {100 * best['accuracy']:.2f} % after epoch "
        f"{best['epoch']})"
    )


def is_over(progress: dict, epoch: int, patience: int) -> bool:
    """Whether the val split has not improved for so many epochs, after `epoch` of them; never for a patience of 0."""
    best = progress.get("best_on_val") or {"epoch": epoch}
    return bool(patience) and epoch - best["epoch"] >= patience
