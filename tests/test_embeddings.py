"""The embedding of images: of every expert's features, each of length 1. Those of runs: test_features.py."""

import numpy as np

from ncl_jax.evaluation.predictor import embedding


def test_experts_are_normalised_one_by_one():
    features = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    found = embedding(features)
    for image in range(5):
        parts = [features[e, image] / np.linalg.norm(features[e, image]) / np.sqrt(3) for e in range(3)]
        np.testing.assert_allclose(found[image], np.concatenate(parts), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert not embedding(np.zeros((1, 2, 3), np.float32)).any()
