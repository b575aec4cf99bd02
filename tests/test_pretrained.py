"""Starting from known weights: files, runs and the hub; what is kept, and what does not fit."""

import shutil
import sys
import types

import jax
import numpy as np
import optax
import pytest
import tiny
from quick import quick_jit
from safetensors.numpy import save_file
from test_own_images import make_folder
from test_weights import write_legacy, write_zip

from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.data.sources import benchmarks
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.runs import pretrained
from ncl_jax.runs.train import train
from ncl_jax.runtime import startup
from ncl_jax.weights import torch_names

FACTS = tiny.FACTS


def config_of(arguments="method=ncl_supervised", **fields):
    return tiny.tiny(arguments, **{"model__backbone": "cifar_resnet", "model__depth": 8, "model__width": 8} | fields)


def start_of(config):
    """What a run of the configuration starts from."""
    return pretrained.load(config, build.make_plan(config, FACTS))


def random_variables(config, num_experts=1):
    """The backbone's and classifier's variables with every number different."""
    shapes = jax.eval_shape(lambda: plans.initial_model(build.make_plan(config, FACTS)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=(num_experts, *leaf.shape[1:])).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, {"params": shapes.params, "batch_stats": shapes.batch_stats})


def write(path, config):
    """A file in torchvision's names; returns the variables."""
    variables = random_variables(config)
    tensors = torch_names.to_torchvision(variables, 0, "fc")
    writer = {".safetensors": lambda path, tensors: save_file(tensors, path)}.get(path.suffix)
    (writer or (write_legacy if "legacy" in path.name else write_zip))(path, tensors=tensors)
    return variables


BACKBONES = {
    "cifar_resnet": {},
    "resnet of basic blocks": {"model__backbone": "resnet", "model__depth": 18, "model__width": 4},
    "resnet of bottlenecks": {"model__backbone": "resnet", "model__depth": 50, "model__width": 4},
    "resnext": {"model__backbone": "resnext", "model__depth": 50, "model__width": 16},
}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "legacy.pth"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_expert_starts_from_the_file(tmp_path, name, backbone):
    config = config_of(model__pretrained=str(tmp_path / name), **BACKBONES[backbone])
    variables = write(tmp_path / name, config)
    start = start_of(config)
    for kind in ("params", "batch_stats"):
        for expert in range(2):
            ours = jax.tree.map(lambda leaf, e=expert: leaf[e], start.variables[kind]["backbone"])
            jax.tree.map(np.testing.assert_array_equal, ours, jax.tree.map(lambda x: x[0], variables[kind]["backbone"]))
    assert start.record["file"] == name and len(start.record["sha256"]) == 64
    assert "left out: fc.bias, fc.weight" in start.note


@pytest.mark.slow
def test_key_encoders_start_from_it_too_and_heads_do_not(tmp_path):
    for behaviour in ("moco", "authors"):
        fields = {"model__backbone": "one_layer", "contrast__behaviour": behaviour}
        config = config_of("method=ncl", model__pretrained=str(tmp_path / "w.pth"), **fields)
        write(tmp_path / "w.pth", config_of(model__backbone="one_layer"))
        state = startup.run_once(lambda config=config: plans.initial_state(build.make_training_plan(config, FACTS)))
        start = start_of(config)
        changed = pretrained.apply(state, start)
        encoder = optax.tree.get(changed.opt_state, "encoder")
        assert tiny.same(changed.params["backbone"], start.variables["params"]["backbone"])
        assert tiny.same(encoder["backbone"], start.variables["params"]["backbone"])
        assert tiny.same(changed.batch_stats["backbone"], start.variables["batch_stats"]["backbone"])
        for head in ("classifier", "projection"):
            assert tiny.same(changed.params[head], state.params[head])
        assert tiny.same(encoder["projection"], optax.tree.get(state.opt_state, "encoder")["projection"])
        assert jax.tree.structure(changed) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model__width": 4}, r"w\.pth, of model\.backbone=cifar_resnet model\.depth=8 model\.width=8, does not fit "
                              r"model\.backbone=cifar_resnet model\.depth=8 model\.width=4: .* tensors .* expected"),
        ({"model__depth": 14}, r"does not fit .*model\.depth=14.*expected .*, got nothing"),
        ({"model__backbone": "resnet", "model__depth": 18}, r"does not fit model\.backbone=resnet"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, fields, said):
    write(tmp_path / "w.pth", config_of())
    with pytest.raises(ConfigError, match=said):
        start_of(config_of(model__pretrained=str(tmp_path / "w.pth"), **fields))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("layer2.0.bn1.running_var"), r"1 tensors .*layer2_0.*bn1.*var.*got nothing"),
        (lambda t: t.update({"layer2.0.extra.weight": np.ones(3, np.float32)}), r"extra.*expected nothing"),
        (lambda t: t.update({"conv1.weight": np.ones((8, 3, 7, 7), np.float32)}), r"conv1.*got .*7, 7, 3, 8"),
        (
            lambda t: t.update({"strange": np.ones((2, 2, 2), np.float32)}),
            r"strange of shape \(2, 2, 2\) is of no",
        ),
    ],
)
def test_a_missing_or_an_extra_tensor_is_named(tmp_path, change, said):
    config = config_of(model__pretrained=str(tmp_path / "w.safetensors"))
    tensors = torch_names.to_torchvision(random_variables(config), 0, "fc")
    change(tensors)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=said):
        start_of(config)


def test_what_is_no_weights_at_all(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("missing.pth", str(tmp_path / "missing.pth"), "./a", "a/b/c/d"):
        with pytest.raises(ConfigError, match=r"model\.pretrained=.*ORG/NAME of the hub"):
            start_of(config_of(model__pretrained=name))
    with pytest.raises(ConfigError, match=r"'huggingface_hub.* https://\S+/timm/resnet18/\S+\.safetensors "):
        start_of(config_of(model__pretrained="timm/resnet18"))
    (tmp_path / "text.pth").write_text("no weights in here")
    with pytest.raises(DataError, match="holds no weights"):
        start_of(config_of(model__pretrained=str(tmp_path / "text.pth")))


def test_the_hub(tmp_path, monkeypatch):
    config = config_of(model__pretrained="org/name")
    write(tmp_path / "model.safetensors", config)

    def download(name, file):
        if name != "org/name":
            raise OSError("401 Client Error")
        return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    assert start_of(config).record["name"] == "org/name"
    with pytest.raises(ConfigError, match=r"other/name .*hub \(401 Client Error\)"):
        start_of(config_of(model__pretrained="other/name"))


# Whole runs, on the backbone of one convolution, whose names are a ResNet's

RUN = {
    "epochs": 2, "optim__milestones": (2,), "optim__batch_size": 256, "run__data_devices": 1, "eval_every": 1,
    "model__width": 16, "optim__warmup_epochs": 0, "optim__learning_rate": 0.01,
}  # fmt: skip


def one_layer(arguments="method=ce", **fields):
    return tiny.tiny(arguments, **RUN | fields)


def write_one_layer(path):
    rng = np.random.default_rng(0)
    names = {"bn1.weight": 4, "bn1.bias": 4, "bn1.running_mean": 4, "bn1.running_var": 4, "conv1.weight": (4, 3, 3, 3)}
    tensors = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in names.items()}
    write_zip(path, tensors=tensors | {"fc.weight": np.zeros((1000, 4), np.float32)})
    return tensors


def restored(workdir):
    import ncl_jax

    return jax.device_get(ncl_jax.load(workdir).variables)


@pytest.mark.slow
def test_a_run_starts_from_a_file_that_it_never_needs_again(tmp_path, capfd):
    tensors = write_one_layer(tmp_path / "w.pth")
    config = one_layer(model__pretrained=str(tmp_path / "w.pth"), model__freeze=1)
    with pytest.raises(ConfigError, match=r"model\.freeze=1 must be at most 0"):  # it has no parts
        train(config, tmp_path / "run")
    config = one_layer(model__pretrained=str(tmp_path / "w.pth"), optim__backbone_scale=0.0)
    results = train(config, tmp_path / "run")
    assert results["pretrained"]["file"] == "w.pth" and len(results["pretrained"]["sha256"]) == 64
    assert "starting from" in capfd.readouterr().out
    variables = restored(tmp_path / "run")
    for expert in range(2):  # the backbone's rate is 0
        kernel = variables["params"]["backbone"]["conv1"]["kernel"][expert]
        np.testing.assert_array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))
    (tmp_path / "w.pth").unlink()
    assert train(config, tmp_path / "run")["ensemble"] == results["ensemble"]
    assert train(config, tmp_path / "run", extend=1)["pretrained"] == results["pretrained"]
    with pytest.raises(ConfigError, match="model.pretrained="):
        train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_run_starts_from_another_run(tmp_path):
    train(one_layer(), tmp_path / "first")
    variables = restored(tmp_path / "first")["params"]["backbone"]["conv1"]["kernel"]
    frozen = {"model__pretrained": str(tmp_path / "first"), "optim__backbone_scale": 0.0}
    results = train(one_layer(**frozen), tmp_path / "second")
    assert results["pretrained"] == {"name": str(tmp_path / "first"), "step": 8, "expert": -1}
    np.testing.assert_array_equal(restored(tmp_path / "second")["params"]["backbone"]["conv1"]["kernel"], variables)
    with pytest.raises(ConfigError, match=r"pretrained_expert=-1: .* has 2 experts and .*=3; .* 0 to 1"):
        train(one_layer(model__num_experts=3, **frozen), tmp_path / "third")
    train(one_layer(model__num_experts=3, model__pretrained_expert=1, **frozen), tmp_path / "third")
    third = restored(tmp_path / "third")["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(third, np.stack([variables[1]] * 3))
    with pytest.raises(ConfigError, match=r"pretrained_expert=2: .* has 2 experts"):
        train(one_layer(model__pretrained_expert=2, **frozen), tmp_path / "fourth")
    shutil.rmtree(tmp_path / "first" / "checkpoints")
    with pytest.raises(Exception, match="holds no checkpoint"):
        train(one_layer(**frozen), tmp_path / "fifth")


# Freezing, the backbone's rate, rematerialisation

SMALL = {
    "model__width": 4, "run__conv": "xla", "optim__learning_rate": 0.1, "optim__warmup_epochs": 0,
    "data__augment": "none", "model__num_experts": 1,
}  # fmt: skip


def step_of(**fields):
    """The state before and after a step of cross-entropy."""
    config = config_of("method=ce", **SMALL | fields)
    plan = build.make_training_plan(config, FACTS)
    state = startup.run_once(lambda: plans.initial_state(plan))
    new, _ = quick_jit(plans.train_step(plan))(state, plans.keys(0).step, tiny.batch())
    return state, new


@pytest.mark.slow
def test_frozen_parts_stay_and_the_rest_moves():
    before, after = step_of(model__freeze=2, optim__weight_decay=0.1)
    for kind in ("params", "batch_stats"):
        old, new = (getattr(state, kind)["backbone"] for state in (before, after))
        for name in old:
            assert tiny.same(old[name], new[name]) == (name in ("conv1", "bn1") or name.startswith("layer1_")), name
    assert not tiny.same(before.params["classifier"], after.params["classifier"])


@pytest.mark.slow
def test_the_backbones_share_of_the_rate():
    plain, scaled = (step_of(optim__backbone_scale=scale) for scale in (1.0, 0.25))
    changes = [jax.tree.map(np.subtract, after.params, before.params) for before, after in (plain, scaled)]
    for ours, theirs in zip(*(jax.tree.leaves(change["backbone"]) for change in changes), strict=True):
        np.testing.assert_allclose(theirs, 0.25 * ours, rtol=1e-3, atol=1e-6)
    for ours, theirs in zip(*(jax.tree.leaves(change["classifier"]) for change in changes), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def one_network(**fields):
    """A network, its variables, and its logits' sum in training mode with their gradient and the new statistics."""
    config = config_of(**SMALL | fields)
    variables = jax.tree.map(lambda leaf: 0.3 * np.abs(leaf[0]), random_variables(config))
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
    model = build.network(config, 4)

    def total(params):
        outputs, updates = model.apply(variables | {"params": params}, images, True, mutable=["batch_stats"])
        return outputs["logits"].sum(), (outputs["logits"], updates["batch_stats"])

    newer = {"xla_cpu_use_fusion_emitters": True}  # as a run has them; the older ones round otherwise
    (_, (logits, stats)), gradient = quick_jit(jax.value_and_grad(total, has_aux=True), **newer)(variables["params"])
    return variables, logits, stats, gradient, quick_jit(lambda: model.apply(variables, images, False))()["logits"]


LARGE = {"model__backbone": "resnet", "model__depth": 18}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"model__freeze": 4}, {"model__freeze": 5} | LARGE], ids=["cifar_resnet", "resnet"])
def test_a_frozen_backbone_uses_and_keeps_its_running_statistics(fields):
    variables, logits, stats, gradient, evaluated = one_network(**fields)
    np.testing.assert_allclose(logits, evaluated, rtol=1e-4, atol=1e-4)
    assert tiny.same(stats, variables["batch_stats"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["backbone"]))
    assert gradient["classifier"]["kernel"].any()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, LARGE], ids=["cifar_resnet", "resnet"])
def test_rematerialisation_gives_the_same_numbers(fields):
    plain, other = (one_network(model__remat=remat, **fields) for remat in (False, True))
    for ours, theirs in zip(*(jax.tree.leaves(found) for found in (plain, other)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(ours).max()))


@pytest.mark.slow
def test_the_places_recipe_from_lists_and_pretrained_weights(tmp_path, monkeypatch, capfd):
    """The recipe's views, classifier, contrast and schedule, on a small network, streamed."""
    counts = {"airfield": 6, "alley": 4, "arch": 2}
    fields = {"totals": {"train": 12, "test": 12}, "largest": 6, "smallest": 2, "num_classes": 3}
    monkeypatch.setitem(benchmarks.BENCHMARKS, "places_lt", benchmarks.BENCHMARKS["places_lt"]._replace(**fields))
    folder = make_folder(tmp_path / "data", ("train", "val"), counts)
    for split, place in (("train", "train"), ("test", "val")):
        lines = [f"{place}/{name}/{i}.jpg {label}" for label, name in enumerate(counts) for i in range(counts[name])]
        (folder / f"Places_LT_{split}.txt").write_text("\n".join(lines))
    write_one_layer(tmp_path / "w.pth")
    small = {
        "data__dir": str(folder), "data__image_size": 16, "data__resize": 18, "model__backbone": "one_layer",
        "model__pretrained": str(tmp_path / "w.pth"), "optim__batch_size": 4, "contrast__queue": 8, "contrast__dim": 4,
        "loss__num_hard": 2, "run__eval_batch": 12, "run__data_devices": 1, "data__feed": "stream",
    }  # fmt: skip
    results = train(tiny.load_config("places_lt", "epochs=2", **small), tmp_path / "run")
    output = capfd.readouterr().out
    assert "Places_LT_train.txt: git blob" in output and "starting from" in output and "waiting for data" in output
    assert results["pretrained"]["file"] == "w.pth" and results["epoch"] == 2 and results["split"] == "test"
