"""Adapters in a frozen transformer's blocks: each kind against its formula, what is trained and shared, and runs."""

import itertools
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_vit
from flax.traverse_util import flatten_dict, unflatten_dict
from programs import content, terminated_at
from quick import quick_jit
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save_file
from scipy.special import erf, softmax
from test_onnx import same
from test_own_images import make_folder

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build, checks
from ncl_jax.config import plan as plans
from ncl_jax.errors import ConfigError
from ncl_jax.models import adapters, experts, vit
from ncl_jax.models.adapters import ADAPTERS
from ncl_jax.runs import folds, heads
from ncl_jax.runs.distill import student
from ncl_jax.runs.evaluate import evaluate_run, finish
from ncl_jax.runs.export import export
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics
from ncl_jax.training.steps import TrainState
from ncl_jax.weights import names

FORM, ROTARY = vit.Form(head=4, hidden=2.0, layer_scale=True), vit.Form(head=4, hidden=2.0, rotary=True)
WIDTH, RANK = 8, 3
FACTS = tiny.FACTS._replace(image_shape=(16, 16, 3))


def drawn(tree, scale=0.5):
    """The tree with random numbers, biases and zeros included."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32), tree)


def normed(x, p, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def turned(x, angles):
    """Queries or keys of one head `[N, d]`, pair by pair: number j of the first half with j of the second."""
    out, half = x.copy(), x.shape[1] // 2
    for n, j in itertools.product(range(len(x)), range(half)):
        a, b, angle = x[n, j], x[n, j + half], angles[n, j]
        out[n, j], out[n, j + half] = (
            a * math.cos(angle) - b * math.sin(angle),
            b * math.cos(angle) + a * math.sin(angle),
        )
    return out


def block_of(x, p, form, adapter, angles):
    """One image's tokens `[N, D]` after a block, from the papers' formulae."""
    own, count = p.get("adapter", {}), 0
    if adapter == "vpt":
        count = len(own["tokens"])
        x = np.concatenate([own["tokens"], x])
        angles = np.concatenate([np.zeros((count, form.head)), angles])
    h = normed(x, p["norm1"], form.epsilon)
    queries, keys, values = np.split(dense(h, p["qkv"]), 3, -1)
    if adapter == "lora":
        queries = queries + h @ own["query_down"] @ own["query_up"] / RANK
        values = values + h @ own["value_down"] @ own["value_up"] / RANK
    mixed = np.zeros_like(x)
    for head in range(WIDTH // form.head):
        part = slice(head * form.head, (head + 1) * form.head)
        q, k = queries[:, part], keys[:, part]
        if form.rotary:
            q, k = turned(q, angles), turned(k, angles)
        mixed[:, part] = softmax(q @ k.T / math.sqrt(form.head), axis=-1) @ values[:, part]
    y = x + dense(mixed, p["proj"]) * p.get("scale1", 1)
    hidden = dense(normed(y, p["norm2"], form.epsilon), p["fc1"])
    out = y + dense(0.5 * hidden * (1 + erf(hidden / math.sqrt(2))), p["fc2"]) * p.get("scale2", 1)
    if adapter == "adaptformer":
        hidden = dense(normed(y, own["norm"], 1e-5), own["down"])
        out = out + own["scale"] * dense(np.maximum(hidden, 0), own["up"])
    return out[count:]


@pytest.mark.parametrize("form", [FORM, ROTARY], ids=["plain", "rotary"])
@pytest.mark.parametrize("name", ["none", "adaptformer", "lora", "vpt"])
def test_an_adapted_block_is_its_formula(name, form):
    x = np.random.default_rng(1).normal(size=(2, 5, WIDTH)).astype(np.float32)
    positions = vit.rotation(2, 2, form.head, 1) if form.rotary else None
    block = vit.Block(form, adapter=name, adapter_width=RANK)
    variables = drawn(jax.eval_shape(lambda: block.init(jax.random.key(0), x, False, positions)))
    found = quick_jit(lambda v: block.apply(v, x, False, positions))(variables)
    angles = np.zeros((5, form.head)) if positions is None else np.arctan2(positions[1], positions[0])
    expected = [block_of(tokens, variables["params"], form, name, angles) for tokens in x]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def network(since=None, until=None, adapter="none", **fields):
    return tiny_vit.TinyVit(2, tiny_vit.WIDTH, since=since, until=until, adapter=adapter, adapter_width=RANK, **fields)


@pytest.fixture(scope="module")
def trunk():
    """The frozen network's variables, random."""
    found = names.from_torch(tiny_vit.state_dict())["params"]["backbone"]
    return {"params": jax.tree.map(jnp.asarray, found)}


IMAGES = np.random.default_rng(2).normal(size=(4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(trunk):
    """The tokens after the first of two blocks, the features that the second makes of them, and those of the whole."""

    def compute(variables):
        return network(until=1).apply(variables, IMAGES, False), network().apply(variables, IMAGES, False)

    tokens, whole = quick_jit(compute)(trunk)
    return tokens, quick_jit(lambda v: network(since=1).apply(v, tokens, False))(trunk), whole


def test_the_first_blocks_and_the_last_ones_are_the_whole(plain):
    tokens, upper, whole = plain
    assert tokens.shape == (4, 5, tiny_vit.WIDTH)
    np.testing.assert_allclose(upper, whole, atol=1e-5)


@pytest.mark.parametrize("name", ["adaptformer", "lora", "vpt"])
def test_training_starts_at_the_frozen_networks_features(trunk, plain, name):
    """Bit-identical but for prompts."""
    upper, (tokens, features, _) = network(since=1, adapter=name), plain

    def compute(variables):
        made = flatten_dict(upper.init(jax.random.key(0), tokens, False)["params"])
        own = unflatten_dict({path: value for path, value in made.items() if "adapter" in path})
        whole = experts.with_shared({"params": {"backbone": own}}, variables)["params"]["backbone"]
        return upper.apply({"params": whole}, tokens, False)

    assert np.array_equal(quick_jit(compute)(trunk), features) == (name != "vpt")


@pytest.mark.parametrize("name", ["bitfit", "layernorm"])
def test_numbers_of_the_blocks_start_as_they_are(trunk, name):
    shapes = jax.eval_shape(lambda: plans.initial_model(build.make_plan(adapted(name), FACTS)))
    state = TrainState(*jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), shapes), None, None)
    found, frozen = flatten_dict(heads.with_copies(state, trunk).params["backbone"]), flatten_dict(trunk["params"])
    for path, value in found.items():
        np.testing.assert_array_equal(value, [frozen[path]] * 2)


TRAINED = {
    "adaptformer": {"adapter/norm/scale", "adapter/norm/bias", "adapter/down/kernel", "adapter/down/bias",
                    "adapter/up/kernel", "adapter/up/bias", "adapter/scale"},
    "lora": {"adapter/query_down", "adapter/query_up", "adapter/value_down", "adapter/value_up"},
    "vpt": {"adapter/tokens"},
    "bitfit": {"norm1/bias", "qkv/bias", "proj/bias", "norm2/bias", "fc1/bias", "fc2/bias"},
    "layernorm": {"norm1/scale", "norm1/bias", "norm2/scale", "norm2/bias"},
}  # fmt: skip


def adapted(name, **fields):
    """A configuration with adapters in the second of two blocks."""
    given = {field.replace(".", "__"): value for field, value in tiny_vit.FIELDS.items()}
    fields = given | {"model__freeze": -1, "model__pretrained": "w", "model__adapters": name} | fields
    return tiny.tiny("method=ncl_supervised", **{"model__adapted_blocks": 1, "run__conv": "xla"} | fields)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_and_heads_alone_are_trained(name):
    plan = build.make_plan(adapted(name), FACTS)
    shapes = jax.eval_shape(lambda: plans.initial_model(plan))
    found = flatten_dict(shapes.params["backbone"], sep="/")
    assert found.keys() == {f"layer3_1/{path}" for path in TRAINED[name]}
    assert all(leaf.shape[0] == 2 for leaf in found.values()) and shapes.params.keys() == {"backbone", "classifier"}
    assert plan.input_shape == (5, tiny_vit.WIDTH) and not plan.on_features


def stepped(name, trunk, mesh=None, **fields):
    """The state after a step of random adapters, and its metrics."""
    plan = build.make_training_plan(adapted(name, **fields), FACTS, mesh)
    state = quick_jit(lambda: plans.initial_state(plan))()
    state = state._replace(params=drawn(state.params))
    rng = np.random.default_rng(3)
    images = jnp.asarray(rng.integers(0, 256, (4, 1, 16, 16, 3)), jnp.uint8)
    batch = tiny.Batch(images, jnp.asarray([0, 1, 2, 3], jnp.int32))
    step = quick_jit(plans.train_step(plan))
    return state, step(state, plans.keys(0).step, batch, trunk)


@pytest.mark.slow
def test_every_strategy_and_mesh_gives_the_same_step(trunk):
    """And micro-batches, and blocks that are computed again for the gradient."""
    before, (after, metrics) = stepped("bitfit", trunk, run__strategy="unroll")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, before.params, after.params)
    assert all(jax.tree.leaves(moved)), moved
    others = [
        stepped("bitfit", trunk, run__strategy="vmap", model__remat=True, optim__accumulate=2),
        stepped("bitfit", trunk, make_mesh(2, 2), run__strategy="vmap", run__expert_devices=2),
    ]
    for _, (other, figures) in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other.params, after.params)
        np.testing.assert_allclose(figures["loss"], metrics["loss"], rtol=1e-4)


def test_the_momentum_encoder_shares_the_frozen_blocks(trunk):
    plan = build.make_training_plan(adapted("lora", contrast__weight=1.0), FACTS)
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    batch = tiny.Batch(jnp.zeros((4, 1, 16, 16, 3), jnp.uint8), jnp.zeros(4, jnp.int32))
    after, metrics = jax.eval_shape(plans.train_step(plan), state, plans.keys(0).step, batch, trunk)
    assert "contrast" in metrics["parts"] and "query_up" in str(jax.tree.structure(after.opt_state))


@pytest.mark.parametrize(("classes", "blocks", "width"), [(100, 12, 4), (365, 12, 8), (1000, 12, 32), (8142, 12, 256),
                                                          (3, 12, 1), (100, 4, 8)])  # fmt: skip
def test_the_width_follows_from_the_classes(classes, blocks, width):
    assert adapters.lift_width(classes, blocks) == width


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"model__adapters": "adapter"}, "model.adapters='adapter' must be one of: none, adaptformer"),
     ({"model__backbone": "resnet", "model__depth": 18, "model__width": 64}, "the backbone resnet has no blocks for"),
     ({"model__backbone": "convnext", "model__depth": 18}, "the backbone convnext has no blocks for adapters"),
     ({"model__freeze": 0}, "model.adapters=lora needs a frozen backbone: set model.freeze=all, not 0"),
     ({"model__adapted_blocks": 3}, "model.adapted_blocks=3: the backbone has 2 blocks"),
     ({"model__adapted_blocks": -1}, "model.adapted_blocks=-1 must be at least 0"),
     ({"model__adapters": "bitfit", "model__adapter_width": 4}, "model.adapter_width=4: bitfit has no width"),
     ({"model__adapter": 4}, "model.adapter=4 is for features that are computed once"),
     ({"model__standardize": True}, "model.standardize=True is for features that are computed once"),
     ({"model__adapters": "none", "model__adapted_blocks": 1}, "model.adapted_blocks=1 needs adapters"),
     ({"model__adapters": "none", "model__adapted_blocks": 0, "model__adapter_width": 1}, "width=1 needs adapters"),
     ({"model__pretrained": ""}, "model.freeze=all needs model.pretrained")],
)  # fmt: skip
def test_adapters_that_there_cannot_be(fields, message):
    with pytest.raises(ConfigError, match=message):
        checks.validate(adapted("lora", **fields))


def train(root, workdir, *flags, **changed):
    fields = tiny_vit.FIELDS | {
        "model.pretrained": f"{root}/w.safetensors", "model.adapters": "adaptformer", "model.adapted_blocks": 1,
        "model.num_experts": 2, "model.classifier": "cosine", "model.head_start": "class_mean", "epochs": 2,
        "eval_every": 1, "checkpoint_every": 5, "optim.milestones": "(2,)", "optim.batch_size": 8, "loss.num_hard": 2,
        "data.augment": "crop_flip", "run.data_devices": 1, "run.conv": "xla", "data.cache": f"{root}/cache",
        "loss.ramp_steps": 0,
    }  # fmt: skip
    values = [f"--config.{name.replace('__', '.')}={value}" for name, value in (fields | changed).items()]
    what = f"--config=folder:dir={root}/data,image_size=16,method=ncl_supervised"
    return cli.attempt("train", [what, f"--workdir={workdir}", *values, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    make_folder(root / "data", ("train", "test"), {"a": 12, "b": 8, "c": 4})
    save_file(tiny_vit.state_dict(), root / "w.safetensors")
    assert train(root, root / "run") == ("", 0)
    return root


def test_a_run_with_adapters_keeps_the_backbone_once(finished):
    directory, model = RunDir(finished / "run"), ncl_jax.load(finished / "run")
    assert model.variables["params"]["backbone"].keys() == {"layer3_1"}
    theirs = names.from_torch(tiny_vit.state_dict())["params"]["backbone"]
    assert tiny.same(theirs, model.variables["trunk"]["params"])
    saved = [file.read_text() for file in directory.checkpoints.rglob("_METADATA")]
    assert saved and all("adapter" in names and "qkv" not in names for names in saved)
    results = directory.read_results()
    assert (
        len(results["baselines"]) == 6 and "Simple classifiers on the frozen features" in directory.report.read_text()
    )


def test_every_way_to_scores_has_the_same(finished, tmp_path):
    files = sorted((finished / "data" / "test").rglob("*.jpg"))
    labels = np.array(["abc".index(file.parent.name) for file in files])
    model, results = ncl_jax.load(finished / "run"), RunDir(finished / "run").read_results()
    scores = model(files)
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(results["ensemble"]["accuracy"])
    assert evaluate_run(finished / "run")["ensemble"]["accuracy"] == results["ensemble"]["accuracy"]
    assert model.features(files[:2]).shape == (2, 2, tiny_vit.WIDTH)
    export(finished / "run", tmp_path / "model.stablehlo")
    exported = ncl_jax.load_exported(tmp_path / "model.stablehlo")(files)
    np.testing.assert_allclose(exported, softmax(scores, -1), atol=1e-5)
    whole = ncl_jax.load(finished / "run", crops=5)
    parts = [whole.prepare(files)[:, y : y + 16, x : x + 16] for y, x in ((0, 0), (0, 12), (12, 0), (12, 12), (6, 6))]
    np.testing.assert_allclose(whole(files), np.mean([model(part) for part in parts], 0), atol=1e-5)


@pytest.mark.parametrize("expert", [None, 1])
def test_adapters_and_heads_are_exported_alone(finished, tmp_path, expert):
    export(finished / "run", tmp_path / "own.safetensors", expert=expert)
    found = load_safetensors((tmp_path / "own.safetensors").read_bytes())
    expected = flatten_dict(ncl_jax.load(finished / "run").variables["params"], sep="/")
    assert found.keys() == {f"params/{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[f"params/{name}"], value if expert is None else value[expert])
    about = (tmp_path / "own.safetensors.json").read_text()
    for part in ('"adapters": "adaptformer"', '"file": "w.safetensors"', '"variables_sha256": "'):
        assert part in about


def test_a_run_stopped_within_an_epoch_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    with terminated_at(5, monkeypatch):  # an epoch has 3 steps
        message, code = train(finished, tmp_path / "run")
    assert code == 143 and "stopped at step 5, saved" in message
    shutil.rmtree(finished / "cache")  # and the features are computed again
    assert train(finished, tmp_path / "run") == ("", 0)
    assert content(tmp_path / "run") == content(finished / "run")


@pytest.mark.slow
def test_training_images_are_scored_by_adapters_that_have_not_seen_them(finished, tmp_path):
    """Those of each fold by the experts that a run on the other images alone would end with."""
    shutil.copytree(finished / "run", tmp_path / "run")
    assert train(finished, tmp_path / "run", "--folds=2") == ("", 0)
    kept = np.load(RunDir(tmp_path / "run").out_of_fold)
    assert kept["logits"].shape == (24, 2, 3) and np.isfinite(kept["logits"]).all()
    files = [f"{finished}/data/{line}" for line in trained_on(tmp_path / "run")]
    held = [file for file, fold in zip(files, kept["folds"], strict=True) if fold == 0]
    others = shutil.copytree(finished / "data", tmp_path / "root" / "data").parent
    shutil.copy(finished / "w.safetensors", others)
    for file in held:
        (others / "data" / pathlib.Path(file).relative_to(finished / "data")).unlink()
    assert train(others, tmp_path / "others") == ("", 0)
    found = ncl_jax.load(tmp_path / "others").experts(held)
    np.testing.assert_allclose(kept["logits"][kept["folds"] == 0], np.swapaxes(found, 0, 1), atol=1e-4)


def trained_on(run):
    """The names of a run's training images, in their order."""
    lines = [line.split("\t") for line in RunDir(run).read_files()]
    return [parts[2] for parts in lines if parts[0] == "train"]


@pytest.mark.slow
def test_an_ensemble_with_adapters_teaches_a_student_with_adapters(finished, tmp_path):
    """Its first loss is the divergence from the teacher's scores, which the teacher's own adapters give."""
    assert cli.attempt("distill", [f"--run={finished}/run", f"--workdir={tmp_path}/student"]) == ("", 0)
    student, teacher = ncl_jax.load(tmp_path / "student"), ncl_jax.load(finished / "run")
    assert (student.config.model.num_experts, student.config.teacher.adapters) == (1, "adaptformer")
    assert student.variables["params"]["backbone"].keys() == {"layer3_1"}
    assert tiny.same(student.variables["trunk"], teacher.variables["trunk"])
    assert {"nbod", "nbod_hard"} <= read_metrics(RunDir(tmp_path / "student").metrics)[0]["parts"].keys()


@pytest.mark.slow
def test_an_onnx_graph_has_the_adapters(finished, tmp_path):
    pytest.importorskip("jax2onnx")
    export(finished / "run", tmp_path / "model.onnx")
    files = sorted((finished / "data" / "test").rglob("*.jpg"))
    model = ncl_jax.load(finished / "run")
    same((tmp_path / "model.onnx").read_bytes(), model.prepare(files), softmax(model(files), -1))


def test_a_whole_tuned_network_is_compared_with_its_frozen_features(finished, tmp_path):
    """The simple classifiers are those beside a run on the same features."""
    whole = {"model.freeze": 0, "model.adapters": "none", "model.adapted_blocks": 0, "model.head_start": "random"}
    assert train(finished, tmp_path / "run", **whole) == ("", 0)
    results, frozen = (RunDir(run).read_results() for run in (tmp_path / "run", finished / "run"))
    assert results["baselines"] == frozen["baselines"] and len(frozen["baselines"]) == 6
    assert "Simple classifiers on the frozen features" in RunDir(tmp_path / "run").report.read_text()
    RunDir(tmp_path / "run").results.unlink()
    assert finish(tmp_path / "run")["baselines"] == frozen["baselines"]


def test_a_student_has_adapters_if_its_teacher_has(finished):
    config = student(finished / "run")
    config.model.update({"adapters": "none", "adapted_blocks": 0})
    with pytest.raises(ConfigError, match="model.adapters=none, teacher.adapters=adaptformer"):
        checks.validate(config)
    config.model.adapters, config.teacher.adapted_blocks = "lora", 3
    with pytest.raises(ConfigError, match="teacher.adapted_blocks=3: the backbone has 2 blocks"):
        checks.validate(config)


def test_folds_are_for_a_frozen_backbone():
    folds.check(adapted("lora"), 3)
    with pytest.raises(ConfigError, match="--folds=3 needs heads on a frozen backbone"):
        folds.check(adapted("none", model__freeze=0, model__adapted_blocks=0), 3)
