"""Early stopping by the val split."""

from types import SimpleNamespace

import pytest
from programs import SHRINK
from tiny import load_config

from ncl_jax.errors import ConfigError
from ncl_jax.runs import early, next_steps
from ncl_jax.runs.evaluate import finish
from ncl_jax.runs.train import train
from ncl_jax.storage.directory import RunDir


def config(**fields):
    """The shrunk quickstart, with a val split."""
    shrunk = {name.replace(".", "__"): value for name, value in SHRINK.items()} | {"optim__milestones": (4, 5)}
    fields = {"model__backbone": "one_layer", "data__val_share": 0.2, "run__patience": 2} | fields
    return load_config("quickstart", "method=ce", **shrunk | fields)


@pytest.mark.parametrize(
    ("best", "epoch", "patience", "over"),
    [(3, 5, 2, True), (3, 4, 2, False), (3, 9, 0, False), (None, 9, 2, False), (3, 3, 1, False)],
)
def test_a_run_is_over_when_nothing_was_better_for_so_long(best, epoch, patience, over):
    progress = {} if best is None else {"best_on_val": {"epoch": best, "accuracy": 0.5}}
    assert early.is_over(progress, epoch, patience) is over


def test_test_images_do_not_choose(tmp_path):
    with pytest.raises(ConfigError, match=r"run.patience=2 needs a val split.*data.val_share"):
        train(config(data__val_share=0.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    evaluated_on_val = SimpleNamespace(others={}, splits=lambda: {"train": None, "val": None})
    with pytest.raises(ConfigError, match=r"run.patience=2 needs a val split"):
        early.check(config(), evaluated_on_val)


@pytest.mark.slow
def test_a_run_stops_early_and_more_patience_continues_it(tmp_path, monkeypatch):
    """Its second and third epoch are not better than its first."""
    found, shown, of = [], iter([0.5, 0.4, 0.5, 0.6, 0.1, 0.1]), early.mean_of_classes

    def figures(run):
        found.append(of(run))
        return next(shown)

    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.early.mean_of_classes", figures)
        results = train(config(), tmp_path)
        assert (results["epoch"], results["best_on_val"]) == (3, {"epoch": 1, "accuracy": 0.5, "patience": 2})
        assert train(config(), tmp_path) == RunDir(tmp_path).read_results()  # it is finished
        page = RunDir(tmp_path).report.read_text()
        assert "Unfinished" not in page and next_steps.after_training(RunDir(tmp_path), results)[1].startswith("name")
        assert finish(tmp_path)["best_on_val"] == results["best_on_val"]
        assert len(found) == 3 and all(0 < value < 1 for value in found)
        continued = train(config(run__patience=3), tmp_path)
    assert (continued["epoch"], continued["best_on_val"]["epoch"]) == (6, 4)
