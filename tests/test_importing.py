"""Checkpoints of the authors' program as runs, and the way back; with state dictionaries of their program."""

import shutil

import jax
import numpy as np
import optax
import programs
import pytest
import tiny
from safetensors.numpy import load as load_safetensors
from test_weights import nested, write_zip

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.data.augment import views
from ncl_jax.errors import ConfigError
from ncl_jax.models import experts, make_network
from ncl_jax.runs.export import export
from ncl_jax.runs.import_authors import import_checkpoint, make_state
from ncl_jax.weights import torch_names
from ncl_jax.weights.read import digest, read_weights

FIELDS = {
    "model__backbone": "cifar_resnet", "model__depth": 8, "model__width": 16, "loss__num_hard": 3,
    "optim__batch_size": 256, "run__data_devices": 1, "epochs": 2, "optim__milestones": (2,),
}  # fmt: skip
MOCO = FIELDS | {"model__num_experts": 2, "contrast__queue": 64, "contrast__dim": 16}


def tensors_of(golden, name):
    figures = golden(name)
    return {key.removeprefix("init/"): figures[key] for key in figures.files if key.startswith("init/")}


def supervised(**fields):
    fields = {"eval_every": 20, "checkpoint_every": 20, "loss__ramp_steps": 30} | fields
    return tiny.tiny("method=ncl_supervised", **FIELDS | {"model__num_experts": 3} | fields)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The run of the authors' supervised state dictionary, and its tensors."""
    place = tmp_path_factory.mktemp("imported")
    tensors = tensors_of(
        lambda name: np.load(programs.ROOT / "tests" / "golden" / f"{name}.npz"), "official_trajectory"
    )
    write_zip(place / "authors.pth", nested, tensors=tensors)
    results = import_checkpoint(supervised(), place / "authors.pth", place / "run")
    return place / "run", tensors, results


@pytest.mark.slow
def test_an_imported_run_loads_and_gives_the_weights_scores(imported):
    run, tensors, results = imported
    model = ncl_jax.load(run)
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:20]
    network = make_network(
        backbone="cifar_resnet", depth=8, width=16, classifier="linear", cosine_scale=16, num_classes=10,
        projection_dim=0, precision="float32",
    )  # fmt: skip
    variables = torch_names.from_torch(tensors, torch_names.SUPERVISED)
    normal = views.normalize(images, model.config.data.mean, model.config.data.std)
    logits = experts.make_apply(network, "unroll")(variables, normal, False)[0]["logits"]
    np.testing.assert_allclose(model(images), logits.mean(0), rtol=1e-4, atol=1e-4)
    assert results["pretrained"]["sha256"] == digest(run.parent / "authors.pth")
    assert results["step"] == 2 * 4 and len(results["experts"]) == 3


def test_what_must_fit(imported, golden, tmp_path):
    run, _, _ = imported
    file = run.parent / "authors.pth"
    with pytest.raises(ConfigError, match="holds a run.*--workdir"):
        import_checkpoint(supervised(), file, run)
    with pytest.raises(ConfigError, match=r"does not fit the configuration's model: .* expected \(2, .*got \(3, "):
        import_checkpoint(supervised(model__num_experts=2), file, tmp_path / "new")
    with pytest.raises(ConfigError, match=r"has no self-supervision: import it with method=ncl_supervised"):
        import_checkpoint(tiny.tiny("method=ncl", **MOCO), file, tmp_path / "new")
    message, code = cli.attempt("import", ["--config=quickstart"])
    assert code == 1 and "--checkpoint" in message
    assert not (tmp_path / "new").exists()


def test_self_supervision_keeps_encoders_and_queues(golden, tmp_path):
    tensors = tensors_of(golden, "official_trajectory_moco")
    config = tiny.tiny("method=ncl", **MOCO | {"optim__batch_size": 30})
    facts = tiny.FACTS._replace(class_counts=(9,) * 10, class_names=tuple("abcdefghij"))
    state = make_state(build.make_training_plan(config, facts), tensors, tmp_path / "authors.pth")
    assert int(state.step) == 6 and int(optax.tree.get(state.opt_state, "count")) == 6
    encoder = optax.tree.get(state.opt_state, "encoder")
    kernels = np.stack([tensors[f"backbone_MA.{e}.conv1.weight"].transpose(2, 3, 1, 0) for e in range(2)])
    np.testing.assert_array_equal(encoder["backbone"]["conv1"]["kernel"], kernels)
    heads = np.stack([tensors[f"classifier_MA.{e}.2.weight"].T for e in range(2)])
    np.testing.assert_array_equal(encoder["projection"]["out"]["kernel"], heads)
    queue = state.memory["contrast"]
    np.testing.assert_array_equal(queue.keys[1], tensors["MOCO.1.queue"].T)
    assert int(queue.position) == tensors["MOCO.0.queue_ptr"].item()
    with pytest.raises(ConfigError, match=r"64 keys of 16 numbers: set contrast.queue=64 and contrast.dim=16"):
        other = tiny.tiny("method=ncl", **MOCO | {"contrast__queue": 32})
        make_state(build.make_training_plan(other, facts), tensors, tmp_path / "a.pth")
    plain = build.make_training_plan(tiny.tiny("method=ncl_supervised", **MOCO), facts)
    found = make_state(plain, tensors, tmp_path / "authors.pth").params
    assert found.keys() == {"backbone", "classifier"}
    np.testing.assert_array_equal(found["classifier"]["bias"][1], tensors["classifier_ce.1.bias"])


def test_all_experts_go_back_in_the_authors_names(imported, tmp_path):
    run, tensors, _ = imported
    export(run, tmp_path / "w.safetensors", "safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    for name in tensors.keys() - {name for name in tensors if name.endswith("num_batches_tracked")}:
        np.testing.assert_array_equal(found[name], tensors[name])


def test_one_expert_goes_back_in_torchvisions_names(imported, tmp_path):
    run, tensors, _ = imported
    export(run, tmp_path / "w.safetensors", "safetensors", expert=2)
    found = load_safetensors((tmp_path / "w.safetensors").read_bytes())
    mine = [name for name in tensors if name.startswith("backbone.2.")]
    expected = {name.removeprefix("backbone.2."): tensors[name] for name in mine}
    expected |= {"fc.weight": tensors["classifier.2.weight"], "fc.bias": tensors["classifier.2.bias"]}
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["layer2.0.conv1.weight"], expected["layer2.0.conv1.weight"])
    np.testing.assert_array_equal(found["fc.weight"], expected["fc.weight"])
    with pytest.raises(ConfigError, match="--expert=3: the run has experts 0 to 2"):
        export(run, tmp_path / "other", "safetensors", expert=3)


def test_shortcuts_and_projections_go_back_and_forth():
    config = tiny.tiny("method=ncl", model__backbone="resnet", model__depth=50, model__width=4, contrast__dim=3)
    shapes = jax.eval_shape(lambda: plans.initial_model(build.make_plan(config, tiny.FACTS)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    variables = jax.tree.map(draw, {"params": shapes.params, "batch_stats": shapes.batch_stats})
    tensors = torch_names.to_torch(variables, torch_names.SELF_SUPERVISED)
    assert tensors["backbone.1.layer1.0.downsample.0.weight"].shape == (16, 4, 1, 1)
    assert tensors["backbone.1.layer1.0.downsample.1.running_var"].shape == (16,)
    assert tensors["classifier.0.2.weight"].shape == (3, 128) and tensors["classifier_ce.0.weight"].shape == (4, 128)
    back = torch_names.from_torch(tensors, torch_names.SELF_SUPERVISED)
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables))


def test_torch_gives_the_same_logits(imported, tmp_path):
    torch = pytest.importorskip("torch")
    run, _, _ = imported
    export(run, tmp_path / "w.safetensors", "safetensors", expert=1)
    w = {name: torch.from_numpy(value) for name, value in read_weights(tmp_path / "w.safetensors").items()}
    relu, conv = torch.nn.functional.relu, torch.nn.functional.conv2d

    def norm(x, name):
        stats = (w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"])
        return torch.nn.functional.batch_norm(x, *stats)

    def block(x, name, stride):
        y = relu(norm(conv(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
        y = norm(conv(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if stride == 2:
            missing = y.shape[1] - x.shape[1]
            x = torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing - missing // 2))
        return relu(x + y)

    model, images = ncl_jax.load(run, expert=1), tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:8]
    normal = np.array(views.normalize(images, model.config.data.mean, model.config.data.std))
    x = relu(norm(conv(torch.from_numpy(normal).permute(0, 3, 1, 2), w["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        x = block(x, f"layer{stage}.0", 1 + (stage > 1))
    logits = x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]
    np.testing.assert_allclose(model(images), logits.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_imported_run_goes_on(imported, tmp_path, capsys):
    run, _, _ = imported
    shutil.copytree(run, tmp_path / "run")
    fields = FIELDS | {"optim__milestones": "(2,)", "model__num_experts": 3, "eval_every": 20, "checkpoint_every": 20}
    fields |= {"contrast__dim": 3, "contrast__queue": 6}
    command = programs.command(tmp_path / "run", "quickstart:method=ncl_supervised", **fields)
    assert cli.attempt("train", command[3:]) == ("", 0)
    assert "holds this run, finished" in capsys.readouterr().out
    assert cli.attempt("train", [*command[3:], "--extend=1"]) == ("", 0)
    output = capsys.readouterr().out
    assert "continuing at step 8" in output and "epoch 3/3" in output
