"""The recipes of LIFT and LIFT+: ten steps against plain loops in PyTorch (tools/make_lift_figures.py), what is
published of them, and their crops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
import tiny
import tiny_vit
from programs import ROOT
from quick import quick_jit

from ncl_jax.config import build, checks, files
from ncl_jax.config import plan as plans
from ncl_jax.data.augment import operations, views
from ncl_jax.data.feeds import stream
from ncl_jax.data.images import transforms
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.models import FROZEN
from ncl_jax.models.adapters import lift_width
from ncl_jax.models.named import NAMED
from ncl_jax.runs import heads
from ncl_jax.training.optimizers import learning_rates
from ncl_jax.weights import names

COUNTS, EPOCHS, BATCH = (5, 2, 1), 5, 4


@pytest.fixture
def config(monkeypatch):
    """LIFT's recipe on the tiny transformer, for images that are not augmented."""
    row = NAMED["clip_base"]._replace(backbone="tiny_vit", depth=tiny_vit.DEPTH, width=tiny_vit.WIDTH, image_size=16)
    monkeypatch.setitem(NAMED, "tiny", row._replace(mean=(0.5,) * 3, std=(0.5,) * 3))
    found = files.load(f"quickstart:recipe=lift,backbone=tiny,epochs={EPOCHS}")
    found.update_from_flattened_dict({
        "optim.batch_size": BATCH, "data.augment": "none", "model.adapter_width": 2, "loss.num_hard": 1,
        "run.conv": "xla",
    })  # fmt: skip
    checks.validate(found)
    return found


def own_tree(figures):
    """The figures' parameters as ours, of one expert."""
    tree = {"classifier": {"kernel": figures["classifier"].T}, "backbone": {}}
    for number in range(tiny_vit.DEPTH):
        block = {"scale": figures[f"adapter.{number}.scale"]}
        for name in ("norm", "down", "up"):
            weight, bias = (figures[f"adapter.{number}.{name}.{kind}"] for kind in ("weight", "bias"))
            block[name] = {"bias": bias, "scale" if name == "norm" else "kernel": weight.T}
        tree["backbone"][f"layer{1 + 2 * number}_{number}"] = {"adapter": block}
    return jax.tree.map(lambda leaf: leaf[None], tree)


def with_seeded(params):
    """The initial parameters with the random ones of the figures."""
    blocks = {name: dict(block["adapter"]) for name, block in params["backbone"].items()}
    for number, block in enumerate(blocks.values()):
        weight = seeded.tensor(f"adapter.{number}.down.weight", (2, tiny_vit.WIDTH))
        block["down"] = block["down"] | {"kernel": jnp.asarray(weight.T[None])}
    return params | {"backbone": {name: {"adapter": block} for name, block in blocks.items()}}


def test_ten_steps_are_those_of_plain_loops(config):
    """Class means, cosines, logit adjustment, adapters, SGD with momentum and decay, the schedule."""
    with np.load(ROOT / "tests" / "golden" / "lift.npz") as file:
        figures = dict(file)
    facts = tiny.FACTS._replace(image_shape=(16, 16, 3), class_names=("a", "b", "c"), class_counts=COUNTS)
    plan = build.make_training_plan(config, facts, steps_per_epoch=2)
    trunk = {"params": names.from_torch(tiny_vit.state_dict())["params"]["backbone"]}
    images, labels = jnp.asarray(seeded.uint8_images(8, 16)), np.repeat(range(3), COUNTS).astype(np.int32)
    features = quick_jit(lambda v, x: plan.trunk.apply(v, plans.normalize(plan, x), False))(trunk, images)
    state = quick_jit(lambda: plans.initial_state(plan))()
    state = heads.start(plan, state, np.asarray(features)[:, None], labels, means=True)
    state, losses = state._replace(params=with_seeded(state.params)), []
    step = quick_jit(plans.train_step(plan))
    for number in range(10):
        rows = slice(number % 2 * BATCH, number % 2 * BATCH + BATCH)
        batch = tiny.Batch(images[rows, None], jnp.asarray(labels[rows]))
        state, metrics = step(state, plans.keys(0).step, batch, trunk)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, figures["losses"], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, own_tree(figures))


@pytest.mark.parametrize(
    "data", ["cifar10lt", "cifar100lt", "imagenet_lt", "places_lt", "inaturalist2018", "quickstart"]
)
@pytest.mark.parametrize(("recipe", "epochs", "long", "rate", "experts", "blocks"),
                         [("lift", 10, 20, 0.01, 1, 0), ("lift_plus", 5, 15, 0.02, 1, 0),
                          ("ncl_adapters", 10, 20, 0.01, 3, 4)])  # fmt: skip
def test_recipes_are_as_published(data, recipe, epochs, long, rate, experts, blocks):
    config = files.load(f"{data}:recipe={recipe}")
    checks.validate(config)
    model, optim = config.model, config.optim
    assert config.epochs == (long if data == "inaturalist2018" else epochs)
    assert (model.pretrained, model.freeze, model.adapters) == ("clip_base", FROZEN, "adaptformer")
    assert (model.num_experts, model.adapted_blocks, model.adapter_width) == (experts, blocks, 0)
    assert (model.classifier, model.cosine_scale, model.head_start) == ("normed", 25, "class_mean")
    assert (optim.name, optim.learning_rate, optim.momentum, optim.weight_decay) == ("momentum", rate, 0.9, 5e-4)
    assert (optim.batch_size, optim.schedule, config.data.resize) == (128, "annealing", 256)
    expected = "ncl" if recipe == "ncl_adapters" else "adjusted"
    assert (config.loss.name, tuple(config.loss.prior_weights)) == (expected, (1.0,))
    assert views.VIEWS[config.data.augment]


def test_a_recipes_arguments_may_be_others():
    config = files.load("cifar100lt:recipe=lift,backbone=dinov2_small,image_size=56,method=nclpp,epochs=3")
    assert (config.model.backbone, config.model.num_experts, config.epochs) == ("dinov2", 2, 3)
    assert (config.data.image_size, config.data.resize, config.loss.name) == (56, 64, "nclpp")
    assert lift_width(100, config.model.depth) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("cifar100lt:recipe=lft", "recipe='lft' must be one of: lift, lift_plus, ncl_adapters"),
     ("cifar100lt:recipe=lift,freeze=2", "leave out freeze=2"),
     ("places_lt:recipe=lift_plus,pretrained=none", "leave out pretrained=none"),
     ("cifar100lt:recipe=lift,backbone=resnet50", "recipe=lift needs a vision transformer, not resnet"),
     ("imagenet_lt:recipe=lift,backbone=vit_base", "backbone=vit_base: its weights were trained on all of ImageNet")],
)  # fmt: skip
def test_a_recipe_that_there_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        files.load(arguments)


def test_the_rate_is_annealed_from_the_first_epoch_on():
    expected = [0.02 / 2 * (1 + np.cos(np.pi * e / 5)) for e in range(5)]
    np.testing.assert_allclose(learning_rates("annealing", 0.02, 5), expected)


@pytest.mark.parametrize(("progress", "least"), [(0.0, 0.08), (0.6, 0.264), (1.0, 1.0)])
@pytest.mark.parametrize("shape", [(20, 20), (12, 30)])
def test_crops_are_squares_that_grow(progress, least, shape):
    """Squares of an image whose red and green say where a pixel is; both twins."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8) * 8
    rng, largest, size = np.random.default_rng(0), min(shape), 40
    part = views.host_part("growing_crop", size)
    cut = stream.Cut([part], 0, size)
    found = np.zeros((30, 1, size, size, 3), np.uint8)
    for out in found:
        cut(image, rng, out, progress)
    crop = quick_jit(lambda key, x: operations.random_square_crop(key, x, size=size, progress=jnp.float32(progress)))
    others = crop(jax.random.key(0), jnp.asarray(np.stack([image] * 30)))
    for crops in (found[:, 0], np.asarray(others)):
        spans = crops.astype(int).max((1, 2)) - crops.astype(int).min((1, 2))
        heights, widths = spans[:, 0] // 8 + 1, spans[:, 1] // 8 + 1
        smallest = min(np.sqrt(least * shape[0] * shape[1]), largest)
        assert np.abs(heights - widths).max() <= 1
        assert heights.min() >= smallest - 2 and heights.max() <= largest
        assert progress == 1 or heights.max() > heights.min()


def test_the_share_of_the_epochs_reaches_streamed_crops_and_the_steps():
    order = stream.Shuffled(0, 20, 4, epochs=3)
    assert [order.progress(step) for step in (0, 4, 5, 10, 14, 15, 99)] == [0, 0, 0.5, 1, 1, 1, 1]
    assert stream.Shuffled(0, 20, 4).progress(99) == 0 and stream.InOrder(20, 4).progress(0) == 1
    split = Split(np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), np.uint8), np.zeros(20, np.int32))
    cut = stream.Cut([views.host_part("growing_crop", 12)], 12, 12)
    batches = stream.Batches(split, order, cut, 0, 4, np.arange(4))
    last = batches[12]["images"][:, 0]
    np.testing.assert_array_equal(last, split.images[order.rows(12)])  # whole squares in the last epoch
    assert (batches[2]["images"][:, 0] != split.images[order.rows(2)]).any()
    assert transforms.least_share(0.0) == pytest.approx(0.08)


def test_a_step_tells_its_views_the_share_of_the_epochs(monkeypatch):
    seen = []

    def augment(key, images, progress):
        seen.append((progress.shape, progress.dtype))
        return images.astype(jnp.float32)

    fields = {"data__augment": "growing_crop", "epochs": 3, "optim__milestones": (3,), "run__conv": "xla"}
    plan = build.make_training_plan(tiny.tiny("method=ce", **fields), tiny.FACTS)
    shares = [plans.share_done(plan, jnp.int32(step)) for step in (0, 4, 5, 10, 99)]
    np.testing.assert_allclose(shares, [0, 0, 0.5, 1, 1])
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    monkeypatch.setattr(plans, "view", lambda *_, **__: augment)
    jax.eval_shape(plans.train_step(plan), state, plans.keys(0).step, tiny.batch())
    assert seen == [((), jnp.float32)]
