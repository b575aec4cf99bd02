"""The views: their operations in order, what the host does of them, and that nothing else has an influence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import BATCH, MEAN, STD, batch_of, difference, jitted, real_images
from quick import quick_jit

from ncl_jax.data.augment import randaugment, views
from ncl_jax.data.augment.operations import (
    geometry,
    random_blur,
    random_crop,
    random_cutout,
    random_flip,
    random_grayscale,
    random_jitter,
    random_policy,
    random_resized_crop,
)
from ncl_jax.data.images import transforms

RESIZING = ("moco_key", "imagenet", "places", "resized_flip", "growing_crop")
KEY_CROP = functools.partial(random_resized_crop, size=32, scale=(0.2, 1.0))


@functools.cache
def jitted_view(name):
    return jax.jit(views.make_view(name, size=32, mean=MEAN, std=STD))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crop_flip", "autoaugment", "moco_key"])
def test_a_view_is_its_stages_then_normalised(name):
    stages = {
        "crop_flip": [random_crop, random_flip],
        "autoaugment": [random_crop, random_flip, random_policy, random_cutout],
        "moco_key": [
            KEY_CROP,
            random_flip,
            random_jitter,
            random_grayscale,
            random_blur,
        ],
    }[name]
    key, images = jax.random.key(7), batch_of(real_images())
    ours = jitted_view(name)(key, images)
    for stage, stage_key in zip(stages, jax.random.split(key, len(stages)), strict=True):
        images = jitted(stage)(stage_key, images)
        assert images.dtype == jnp.uint8
    assert ours.dtype == jnp.float32
    expected = (np.asarray(images) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_no_augmentation_is_normalisation():
    images = jnp.asarray(real_images())
    ours = jitted_view("none")(jax.random.key(0), images)
    np.testing.assert_array_equal(ours, jitted_view("none")(jax.random.key(1), images))
    np.testing.assert_allclose(ours, (np.asarray(images) / 255 - np.array(MEAN)) / np.array(STD), atol=1e-5)


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'colour'.*'none', 'crop_flip', 'autoaugment', 'moco_key', 'imagenet'"):
        views.make_view("colour", size=32, mean=MEAN, std=STD)


@pytest.mark.parametrize("name", ["crop_flip", "autoaugment", "moco_key"])
def test_draws_are_the_keys_and_each_image_has_its_own(name):
    view, same = jitted_view(name), batch_of(real_images()[:1])
    ours = np.asarray(view(jax.random.key(8), same))
    np.testing.assert_array_equal(ours, view(jax.random.key(8), same))
    assert np.mean((ours == view(jax.random.key(9), same)).all(axis=(1, 2, 3))) < 0.1
    assert len(np.unique(ours[:64].reshape(64, -1), axis=0)) > 40
    # An image does not depend on the others.
    others = same.at[1:].set(batch_of(real_images(), BATCH - 1))
    np.testing.assert_array_equal(view(jax.random.key(8), others)[0], ours[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoaugment", "moco_key"])
def test_a_sharded_batch_gives_the_same_values_without_communication(name):
    if len(jax.devices()) < 2:
        pytest.skip("needs several devices")
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    key, images = jax.random.key(10), batch_of(real_images())
    sharded = jax.device_put(images, sharding)
    program = jitted_view(name).lower(key, sharded).compile()
    text = program.as_text()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if word in text]
    np.testing.assert_array_equal(program(key, sharded), jitted_view(name)(key, images))


def test_a_view_is_traced_once():
    traces = []
    view = views.make_view("crop_flip", size=32, mean=MEAN, std=STD)

    @jax.jit
    def step(key, images):
        traces.append(1)
        return view(key, images)

    for seed in range(3):
        step(jax.random.key(seed), real_images())
    assert len(traces) == 1


@pytest.mark.slow
def test_the_large_recipes_views():
    crop = functools.partial(random_resized_crop, size=32, scale=(0.08, 1.0))
    jitter = functools.partial(random_jitter, hue=0.0, probability=1.0)
    stages = {
        "imagenet": [crop, random_flip, jitter, randaugment.random_augment],
        "places": [crop, jitter, random_grayscale, random_blur, random_flip],
    }
    for name, operations in stages.items():
        images, key = batch_of(real_images()), jax.random.key(11)
        ours = jitted_view(name)(key, images)
        for operation, operation_key in zip(operations, jax.random.split(key, len(operations)), strict=True):
            images = jitted(operation)(operation_key, images)
        np.testing.assert_allclose(ours, views.normalize(images, MEAN, STD), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", views.VIEWS)
def test_the_hosts_part_is_left_out_on_the_device(name):
    part, images, key = views.host_part(name, 16), batch_of(real_images(), 8), jax.random.key(12)
    assert (part is None) == (not views.resizes(name)) == (name not in RESIZING)
    ours = views.make_view(name, size=32, mean=MEAN, std=STD, cut=True)(key, images)
    if part is None:
        np.testing.assert_allclose(ours, jitted_view(name)(key, images), atol=1e-5)
        return
    assert part(np.random.default_rng(0), np.zeros((40, 50, 3), np.uint8)).shape == (16, 16, 3)
    keys = jax.random.split(key, len(views.VIEWS[name]))
    for operation, operation_key in list(zip(views.VIEWS[name], keys, strict=True))[1:]:
        images = operation(operation_key, images)
    assert difference(np.round((ours * np.array(STD) + np.array(MEAN)) * 255), np.asarray(images)) <= 1


def test_a_view_gives_images_of_its_size_from_any():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 50, 70, 3)), jnp.uint8)
    for name in RESIZING:
        view = views.make_view(name, size=24, mean=MEAN, std=STD)
        assert jax.eval_shape(view, jax.random.key(0), images).shape == (4, 24, 24, 3)


@pytest.mark.slow
def test_host_and_device_scale_alike():
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    box = (3, 11, 41, 37)
    crop = quick_jit(functools.partial(geometry.resized_crop, height=24, width=24))
    ours = crop(image[None], *(np.array([side]) for side in box))[0]
    assert difference(ours, transforms.resized_crop(image, *box, 24)) <= 1
