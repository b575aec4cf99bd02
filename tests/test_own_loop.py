"""docs/own_loop.md: its program runs, learns, and uses the public names."""

import numpy as np
import pytest
from programs import ROOT

import ncl_jax
from ncl_jax.data import samplers

PUBLIC = {"load", "load_exported", "Model", "train", "losses", "metrics", "methods", "models", "data", "errors"}


@pytest.mark.slow
def test_the_pages_program_learns():
    text = (ROOT / "docs" / "own_loop.md").read_text().partition("```python\n")[2].partition("```")[0]
    names = {}
    exec(compile(text, "own_loop.md", "exec"), names)
    history, figures = names["history"], names["figures"]
    assert np.mean(history[-10:]) < 0.7 * np.mean(history[:10])
    assert figures["ensemble"]["accuracy"] > 0.4 and len(figures["experts"]) == 2
    assert np.asarray(names["hard"]).sum(1).tolist() == [3] * len(names["held_out"])


def test_the_public_names_are_listed_and_there():
    assert set(ncl_jax.__all__) > PUBLIC and set(ncl_jax.__all__) <= set(dir(ncl_jax))
    assert all(getattr(ncl_jax, name) is not None for name in ncl_jax.__all__)
    assert ncl_jax.data.longtail.groups and ncl_jax.losses.ncl_loss and ncl_jax.metrics.summarize
    assert ncl_jax.Model.__module__ == "ncl_jax" and (ROOT / "ncl_jax" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ncl_jax.nothing
    with pytest.raises(AttributeError, match=r"ncl_jax\.data.*no attribute 'nothing'"):
        _ = ncl_jax.data.nothing


@pytest.mark.parametrize(("sampler", "expected"), [("instance", [0.8, 0.16, 0.04]), ("class_balanced", [1 / 3] * 3),
                                                   ("square_root", [0.5801, 0.2594, 0.1605])])  # fmt: skip
def test_samplers_draw_classes_as_they_say(sampler, expected):
    labels = np.repeat([0, 1, 2], [100, 20, 5])
    chances = samplers.probabilities(labels, 3, sampler)
    shares = [chances[labels == c].sum() for c in range(3)]
    if sampler == "square_root":
        expected = np.sqrt([100, 20, 5]) / np.sqrt([100, 20, 5]).sum()
    np.testing.assert_allclose(shares, expected, rtol=1e-3)
    drawn = np.concatenate([labels[samplers.batch_rows(chances, 64, 3, step)] for step in range(400)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), expected, atol=0.015)


def test_a_batch_follows_from_seed_and_step():
    chances = samplers.probabilities(np.array([0, 0, 1]), 2, "class_balanced")
    one, same, other = (samplers.batch_rows(chances, 32, 0, step) for step in (4, 4, 5))
    assert (one == same).all() and (one != other).any()
    with pytest.raises(ValueError, match="sampler='even' must be one of"):
        samplers.probabilities(np.array([0]), 1, "even")
