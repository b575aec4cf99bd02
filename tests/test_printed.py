"""The sentences and tables of the console: they name what counts, and only what the figures bear out."""

import copy

import pytest
import tiny

from ncl_jax.config import build
from ncl_jax.methods import METHODS
from ncl_jax.report import tables
from ncl_jax.runs import messages

ROW = {"accuracy": 0.85, "many": 0.85, "medium": None, "few": None, "nll": 0.465, "ece": 0.095, "per_class": [0.85] * 4}


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
    assert shown.count("85.0") == 2 and "expert 0" not in shown and "disagree" not in shown  # accuracy and many


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
    config = tiny.tiny(f"method={name}", run__data_devices=1)
    named = messages.recipe(config)
    assert f"method: {name} ({METHODS[name].description[:10].strip('`')}" in named.replace("`", "")
    assert ("loss.num_hard" in named) == (name not in ("ce", "balanced_softmax")) and "loss.name" not in named
    fed = build.make_training_plan(config, tiny.FACTS, build.mesh(config)).objective.fields
    line = messages.loss_terms(fed, config, fed)
    assert ("hard classes" in line) == (name == "ncl_supervised")
    assert ("agreement" in line) == (name == "ncl_supervised") and ("difference" in line) == (name == "ride")


def test_the_split_that_is_evaluated_is_named():
    assert "val accuracy 85.00 %" in messages.evaluation_line(results() | {"split": "val"})
