"""The prior that deployment expects: what it does to probabilities, in every command, and files that are none."""

import jax
import numpy as np
import pytest
import tiny

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import priors
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.export import export

COUNTS = (60, 30, 10)


@pytest.mark.parametrize("power", [0.0, 1.0, -0.5])
def test_probabilities_are_reweighted(power, tmp_path):
    """Bayes: the posterior under another prior is proportional to it, over the prior that the model was trained for."""
    (tmp_path / "prior.txt").write_text("1\n2\n5\n")
    logits = np.random.default_rng(0).normal(size=(4, 3))
    trained = np.array(COUNTS) ** power
    for prior, shares in (("uniform", [1, 1, 1]), ("train", COUNTS), (str(tmp_path / "prior.txt"), [1, 2, 5])):
        ours = jax.nn.softmax(logits + priors.adjustment(prior, COUNTS, power))
        expected = np.exp(logits) * shares / trained
        np.testing.assert_allclose(ours, expected / expected.sum(-1, keepdims=True), rtol=1e-5)
    for own, its_power in (("uniform", 0.0), ("train", 1.0)):
        np.testing.assert_allclose(priors.adjustment(own, COUNTS, its_power), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "fields", "power"),
    [("ce", {}, 1), ("ncl", {}, 0), ("nclpp", {}, 0), ("balpoe", {}, 0), ("ldam_drw", {}, 1), ("dbm_ncl", {}, 0),
     ("logit_adjustment", {"loss.prior_weights": (1.5,)}, -0.5)],
)  # fmt: skip
def test_each_method_says_what_prior_its_scores_are_meant_for(method, fields, power):
    config = tiny.tiny(f"method={method}")
    config.update_from_flattened_dict(fields)
    assert build.prior_power(config, tiny.FACTS) == pytest.approx(power)


def test_a_class_that_does_not_occur_is_not_named(tmp_path):
    (tmp_path / "prior.json").write_text("[0, 1, 1]")
    adjusted = np.array([9.0, 1.0, 2.0]) + priors.adjustment(str(tmp_path / "prior.json"), COUNTS, 0.0)
    assert np.isfinite(adjusted).all() and adjusted.argmax() == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 2", "has 2 numbers, but there are 3 classes"),
        ("[" + "1" * 400 + ", 1, 1]", "neither uniform nor train"),
        ("1 2 3 4", "has 4 numbers"),
        ("1 -2 3", "at least 0"),
        ("0 0 0", "not only zeros"),
        ("1 nan 3", "at least 0"),
        ("1 inf 3", "at least 0"),
        ("a b c", "neither uniform nor train nor a file of numbers"),
        ("[1, 2", "neither uniform nor train nor a file of numbers"),
        ("[[1, 2, 3]]", "neither uniform nor train nor a file of numbers"),
        (None, "neither uniform nor train nor a file of numbers"),
    ],
)
def test_files_that_are_no_prior(tmp_path, content, said):
    if content is not None:
        (tmp_path / "prior").write_text(content)
    with pytest.raises(ConfigError, match=rf"--prior=.*prior.*{said}"):
        priors.read(str(tmp_path / "prior"), COUNTS)


@pytest.fixture
def run(old_run):
    return old_run


@pytest.mark.slow
def test_every_way_from_images_to_scores_has_it(run, tmp_path, capfd):
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:6]
    plain, adjusted = ncl_jax.load(run), ncl_jax.load(run, prior="train")
    shares = np.array([500, 299, 179, 107, 64, 38, 23, 13, 8, 5]) / 1236
    expected = np.asarray(jax.nn.softmax(plain(images))) * shares
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(adjusted(images)), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ncl_jax.load(run, prior="uniform")(images), plain(images), atol=1e-5)
    export(run, tmp_path / "model", prior="train")
    exported = ncl_jax.load_exported(tmp_path / "model")
    np.testing.assert_allclose(exported(images), expected, rtol=1e-4, atol=1e-6)
    assert exported.about["prior"] == "train"
    balanced, head = evaluate_run(run)["ensemble"], evaluate_run(run, prior="train")["ensemble"]
    assert head["per_class"][0] > balanced["per_class"][0] and head["per_class"][-1] <= balanced["per_class"][-1]
    message, code = cli.attempt("evaluate", [f"--workdir={run}", "--prior=train", "--shift"])
    assert code == 0 and "backward-50" in capfd.readouterr().out
    message, code = cli.attempt("evaluate", [f"--workdir={run}", "--prior=train", "--finish"])
    assert code == 1 and "leave --prior, --temperature and --crops out" in message
