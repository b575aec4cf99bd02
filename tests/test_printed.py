"""The sentences and tables of the console: they name what counts, and only what the figures bear out."""

import copy
import sys

import numpy as np
import pytest
import tiny

from ncl_jax import cli
from ncl_jax.cli import evaluate
from ncl_jax.config import build
from ncl_jax.errors import ConfigError
from ncl_jax.methods import METHODS
from ncl_jax.report import tables
from ncl_jax.runs import answers, messages, next_steps
from ncl_jax.runtime import progress
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust.sets import Rule

ROW = {"accuracy": 0.85, "many": 0.85, "medium": None, "few": None, "nll": 0.465, "ece": 0.095, "per_class": [0.85] * 4}

RULE = Rule(np.ones(2), np.full(2, 0.5), np.ones(2), 0.9, "marginal", 90, np.zeros(0, int))


def results(*, images=100, differ=0.0, freeze=-1, **baselines):
    """Of three experts that are the same, but that `differ` of the images get other answers."""
    rows = [copy.deepcopy(ROW) for _ in range(3)]
    rows[2]["accuracy"] += differ
    pairs = {"all": differ, "many": differ, "medium": None, "few": None, "per_class": [differ] * 4}
    return {
        "ensemble": ROW, "experts": rows, "disagreement": {"kl": pairs, "top1": pairs}, "best_on_test": None,
        "test_counts": [images] * 4, "class_counts": [9, 6, 3, 2], "config": {"model": {"freeze": freeze}},
        "baselines": {name: ROW | {"accuracy": share} for name, share in baselines.items()},
    }  # fmt: skip


@pytest.mark.parametrize("freeze", [-1, 0])
def test_experts_that_are_the_same_are_one_row_and_a_sentence(freeze):
    """Six rows alike and disagreement of 0.0 tell nothing; what to do is said where the reason is known."""
    shown = tables.table(results(freeze=freeze))
    assert "3 experts give the same answers" in shown and ("model.num_experts=1" in shown) == (freeze == -1)
    assert shown.count("85.0") == 1 and "expert 0" not in shown and "disagree" not in shown


def test_experts_that_differ_keep_their_rows():
    shown = tables.table(results(differ=0.01))
    assert all(name in shown for name in ("expert 0", "expert 2", "experts disagree %", "KL (nats)"))
    assert "same answers" not in shown and "same answers" not in tables.table(results() | {"disagreement": None})


@pytest.mark.parametrize(("share", "images", "worse"), [(0.855, 85, False), (0.855, 100_000, True), (0.95, 85, True)])
def test_a_run_is_worse_than_a_simple_classifier_by_more_than_chance(share, images, worse):
    found = results(images=images, **{"linear, balanced softmax": share, "ridge regression": 0.1})
    text = tables.worse_than(found)
    assert bool(text) == worse and ("method=balanced_softmax" in text) == worse
    assert "trains" not in tables.worse_than(results(**{"ridge regression": 1.0}))


@pytest.mark.parametrize(("share", "worse"), [(0.9, False), (1.0, True)])
def test_as_a_mean_of_classes_each_class_has_its_own_chance(share, worse):
    """Of four classes the smallest has 4 images: its share says little."""
    found = results(x=0.0) | {"test_counts": [400, 400, 400, 4]}
    found["class_means"] = {"ensemble": {"accuracy": 0.85}, "experts": []}
    found["baselines"]["x"]["per_class"] = [share] * 4
    assert bool(tables.worse_than(found)) == worse


@pytest.mark.parametrize("name", ["ce", "balanced_softmax", "ncl_supervised", "ride"])
def test_a_method_is_named_with_the_terms_that_count(name):
    config = tiny.tiny(f"method={name}", run__data_devices=1, run__conv="xla")
    named = messages.recipe(config)
    assert f"method: {name} ({METHODS[name].description.replace('`', '')})" in named
    assert ("loss.num_hard" in named) == (name not in ("ce", "balanced_softmax")) and "loss.name" not in named
    fed = build.make_training_plan(config, tiny.FACTS, build.mesh(config)).objective.fields
    line = messages.loss_terms(fed, config, fed)
    assert ("hard-category" in line) == (name == "ncl_supervised")
    assert ("distillation" in line) == (name == "ncl_supervised") and ("difference" in line) == (name == "ride")


def test_the_split_that_is_evaluated_is_named():
    assert "val accuracy 85.00 %" in messages.evaluation_line(results() | {"split": "val"})


def test_without_a_terminal_long_work_tells_how_far_it_is(monkeypatch, capfd):
    """The first line after 10 s, then one every 30 s; each with the time left."""
    seconds = iter(range(0, 10_000, 5))
    lines = progress.Lines("decoding", 100, clock=lambda: next(seconds))
    told = [(done, line) for done in range(100) if (line := lines.line(done))]
    assert [done for done, _ in told[:4]] == [1, 7, 13, 19]
    assert told[1][1] == "decoding: 7 of 100 images, 0.175 images/s, about 9 min left"
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert list(progress.counted(3, "decoding")) == [0, 1, 2]
    out, errors = capfd.readouterr()
    assert errors.startswith("decoding: 1 of 3 images, ") and not out


def test_a_resumed_run_counts_its_own_speed():
    seconds = iter([0.0, 100.0])
    line = progress.Lines("x", 200, 100, lambda: next(seconds)).line(150)
    assert "150 of 200 images, 0.5 images/s, about 2 min" in line


def test_features_that_are_computed_again_are_announced():
    assert "3,409" in messages.computing_features(3409, 5, "training")[0] and not messages.computing_features(0, 5, "x")


@pytest.mark.parametrize("share", [None, 0.7])
def test_the_other_prior_comes_with_the_runs_own_figures(share):
    found = results() | {"class_means": {"ensemble": {"accuracy": 0.8}}}
    found |= {} if share is None else {"moved": {"accuracy": 0.9, "class_mean": share}}
    said = "".join(next_steps.predicted(found))
    assert ("90.0 % instead of 85.0 %" in said) == ("70.0 % instead of 80.0 %" in said) == bool(said)
    assert bool(said) == (share is not None)


@pytest.mark.parametrize(
    ("rule", "refuse", "expected"),
    [
        (None, None, "50 %"),
        (None, 0.05, "unlike"),
        (RULE, None, "exactly one"),
        (RULE, 0.05, "one class or it is unlike"),
    ],
)
def test_what_makes_an_answer_unsure(rule, refuse, expected):
    assert expected in answers.why_unsure(answers.How(1, rule, refuse))


@pytest.mark.parametrize(("split", "notes"), [("val", 1), ("test", 0)])
def test_it_is_said_what_sets_are_calibrated_on(split, notes):
    first, *rest = answers.rule_lines(RULE, ("a", "b"), "val split", split)
    assert "90 images (val split)" in first and len(rest) == notes and all("--folds=5" in line for line in rest)
    assert len(answers.rule_lines(RULE, ("a", "b"), "out-of-fold scores", "val")) == 1


def test_the_mixes_of_classes_are_named():
    named = [evaluate.used({"prior": prior, "temperature": 2.0}) for prior in (None, "train", "uniform", "mix.txt")]
    assert "as trained" in named[0].replace("they were ", "") and "as in training" in named[1]
    assert "equally" in named[2] and "mix.txt" in named[3] and all("temperature 2" in text for text in named)


def test_means_over_classes_without_images_say_over_how_many():
    assert "2 of 4 classes" in tables.untested({"test_counts": [3, 0, 1, 0]})
    assert not tables.untested({"test_counts": [3, 1]}) and not tables.untested({})


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="did you mean mine"):
        RunDir(tmp_path / "mien").read_config()
    with pytest.raises(ConfigError, match="runs beside it: .*mine, .*other"):
        RunDir(tmp_path / "xxxxxxx").read_config()


def test_a_folder_for_evaluate_is_data():
    with pytest.raises(ConfigError, match="did you mean --data"):
        cli.make_parser("evaluate", evaluate).read(["--run=r", "--dir=x"])
