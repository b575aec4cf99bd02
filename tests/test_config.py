"""Configurations: arguments, methods, checks, and what may change when a run is continued."""

import itertools
import json
import re

import bad_values
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ncl_jax import methods
from ncl_jax.config import (
    base_config,
    build,
    checks,
    choose_method,
    cifar_long_tailed,
    files,
    parse_arguments,
    recipes,
    scale_schedule,
)
from ncl_jax.config.fields import complete, differences, fields, flatten
from ncl_jax.errors import ConfigError
from ncl_jax.models import FROZEN


def configured(method, semantics="official"):
    config = base_config()
    choose_method(config, method, semantics)
    return config


def test_base_is_the_authors_cifar_recipe():
    flat = flatten(base_config())
    recipe = {
        "epochs": 400,
        "model.depth": 32,
        "model.num_experts": 3,
        "model.classifier": "linear",
        "loss.num_hard": 30,
        "loss.distill_weight": 0.6,
        "loss.hard_distill_weight": 0.6,
        "loss.hard_weight": 1.0,
        "loss.ramp_steps": 0,
        "contrast.momentum": 0.999,
        "contrast.queue": 1024,
        "contrast.temperature": 0.2,
        "contrast.dim": 64,
        "optim.batch_size": 64,
        "optim.learning_rate": 0.1,
        "optim.schedule": "step",
        "optim.warmup_epochs": 5,
        "optim.milestones": [320, 360],
        "optim.momentum": 0.9,
        "optim.weight_decay": 2e-4,
    }
    assert {name: flat[name] for name in recipe} == recipe
    checks.validate(base_config())


# Arguments

DEFAULTS = {"imbalance": 100.0, "method": "ncl", "epochs": 400}


def test_arguments_take_their_defaults_type():
    args = parse_arguments("imbalance=50,method=nclpp", **DEFAULTS)
    assert (args.imbalance, args.method, args.epochs) == (50.0, "nclpp", 400)
    assert isinstance(args.imbalance, float) and isinstance(args.epochs, int)
    for text in (None, "", ","):
        assert parse_arguments(text, **DEFAULTS).to_dict() == DEFAULTS


@pytest.mark.parametrize(
    "text,message",
    [
        ("imbalanse=50", r"'imbalanse=50'.*imbalance=100\.0, method=ncl, epochs=400"),
        ("imbalance", r"'imbalance'.*imbalance=100\.0"),
        ("imbalance=fifty", r"imbalance='fifty'.*float"),
        ("epochs=1.5", r"epochs='1\.5'.*int"),
        ("epochs=1,epochs=2", r"'epochs' appears twice"),
    ],
)
def test_wrong_arguments_are_named_with_the_valid_ones(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_arguments(text, **DEFAULTS)


def test_a_file_of_its_name_hides_no_installed_configuration(tmp_path, monkeypatch):
    (tmp_path / "quickstart").write_text("names of classes")
    monkeypatch.chdir(tmp_path)
    assert files.load("quickstart:method=ce").loss.name == "ncl"


# Methods

PARTS = ("hard_weight", "distill_weight", "hard_distill_weight")


@pytest.mark.parametrize(
    "method,balanced,weights,contrast,copies,num_experts",
    [
        ("ce", False, (0, 0, 0), 0, 1, 3),
        ("balanced_softmax", True, (0, 0, 0), 0, 1, 3),
        ("nil", True, (1, 0, 0), 0, 1, 3),
        ("nbod_full", True, (0, 0.6, 0), 0, 1, 3),
        ("ncl_supervised", True, (1, 0.6, 0.6), 0, 1, 3),
        ("ncl", True, (1, 0.6, 0.6), 1, 1, 3),
        ("nclpp", True, (1, 0.6, 0.6), 0, 4, 2),
    ],
)
def test_methods_set_their_parts(method, balanced, weights, contrast, copies, num_experts):
    config = configured(method)
    loss = config.loss
    assert loss.balanced is balanced
    assert tuple(loss[name] for name in PARTS) == weights
    assert (config.contrast.weight, loss.copies, config.model.num_experts) == (contrast, copies, num_experts)


def test_a_method_chosen_after_another_equals_it_alone():
    for first, second in itertools.product(methods.METHODS, repeat=2):
        config = configured(first, "equations")
        choose_method(config, second)
        expected = configured(second)
        wants = [dict(methods.METHODS[method].wants) for method in (first, second)]
        expected.update_from_flattened_dict(wants[0] | wants[1])
        assert config == expected, (first, second)


def test_every_method_is_tested_and_valid_in_both_semantics():
    for method, semantics in itertools.product(methods.METHODS, methods.SEMANTICS):
        config = configured(method, semantics)
        checks.validate(config)
        expected = ("first", "zero", "per_expert") if semantics == "official" else ("own", "exclude", "mean_pair")
        loss = config.loss
        assert (loss.hard_scores, loss.non_hard, loss.distill_normalization) == expected


def test_unknown_method_and_semantics_list_the_valid_ones():
    with pytest.raises(ConfigError, match=r"method='nc'.*ce, .*ncl, nclpp"):
        configured("nc")
    with pytest.raises(ConfigError, match=r"semantics='paper'.*official, equations"):
        configured("ncl", "paper")


def parts_of(config, counts, logits, labels, step):
    """The parts of a step's loss."""
    compute = jax.jit(build.objective(config, counts).compute)
    return compute({"logits": logits}, labels, jnp.int32(step), ())[0]


def test_cross_entropy_trains_the_plain_softmax():
    """The method as the run computes it: no prior, no other part."""
    counts = [50, 20, 4]
    logits = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 2])
    results = {}
    for method, prior in (("ce", 0), ("balanced_softmax", np.log(counts))):
        parts = parts_of(configured(method), counts, logits, labels, 0)
        scores = logits.astype(np.float64) + prior
        log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        expected = -log_p[:, np.arange(4), labels].mean(-1).sum()
        np.testing.assert_allclose([sum(parts.values()), parts["nil"]], expected, rtol=1e-5)
        results[method] = float(parts["nil"])
    assert abs(results["ce"] - results["balanced_softmax"]) > 0.1


def test_ramp_scales_all_parts_but_the_first():
    config = configured("ncl_supervised")
    config.loss.num_hard, config.loss.ramp_steps = 2, 10
    logits = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    arguments = ([50, 20, 4], logits, np.array([0, 1, 2, 2]))
    start, half, full, later = (parts_of(config, *arguments, step) for step in (0, 5, 10, 99))
    config.loss.ramp_steps = 0
    unramped = parts_of(config, *arguments, 0)
    for name, value in unramped.items():
        share = 1 if name == "nil" else 0.5
        np.testing.assert_allclose([half[name], full[name], later[name]], [share * value, value, value], rtol=1e-5)
        assert value > 0.01 and (start[name] == 0) == (name != "nil")


# Checks

MORE_BAD = [("model.depth", 2), ("model.depth", 30), ("model.freeze", 5), ("loss.name", "moco")]
MORE_BAD += [("data.imbalance", 0.5), ("data.imbalance", -1.0)]


def changed(name, value):
    config = base_config()
    config.update_from_flattened_dict({name: value})
    return config


@pytest.mark.parametrize("name,value", [*bad_values.ROWS, *MORE_BAD])
def test_bad_values_are_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name}='?{re.escape(str(value))}'? must be"):
        checks.validate(changed(name, value))


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("balpoe", {"loss.prior_weights": (0.0, 2.0)}, r"loss.prior_weights=\(0.0, 2.0\) .*model.num_experts=3"),
        ("balpoe", {"loss.balanced": False}, "loss.balanced=False: loss.name=adjusted does not read it"),
        ("ldam_drw", {"loss.reweight_from": 160.0}, "loss.reweight_from=160.0 must be at most 1"),
        ("balpoe", {"loss.prior_weights": ("a",)}, r"loss.prior_weights=\('a',\) must be numbers"),
        ("dbm_ncl", {"model.classifier": "cosine"}, "model.classifier=cosine: loss.name=dbm needs normed"),
        ("ride", {"model.classifier": "linear"}, "model.classifier=linear: loss.name=ldam needs normed"),
        *((method, {"loss.label_smoothing": 0.1}, "loss.label_smoothing=0.1: set 0")
          for method in ("nil", "ncl_supervised", "nclpp", "ldam_drw", "dbm_ncl")),
        *((method, {"data.mixup": 0.2}, "data.mixup=0.2: set 0") for method in ("ncl", "nclpp")),
    ],
)  # fmt: skip
def test_what_a_method_cannot_take_is_refused_by_name(method, fields, message):
    config = configured(method)
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=message):
        checks.validate(config)


@pytest.mark.parametrize("method", ["ce", "balanced_softmax", "nbod_full", "balpoe", "logit_adjustment"])
def test_methods_of_plain_targets_take_smooth_ones_and_mixed_images(method):
    config = configured(method)
    config.loss.label_smoothing, config.data.mixup = 0.1, 0.2
    checks.validate(config)


def test_copies_exclude_self_supervision():
    config = configured("nclpp")
    config.contrast.weight = 0.5
    with pytest.raises(ConfigError, match=r"loss\.name=nclpp.*contrast\.weight=0, not 0\.5"):
        checks.validate(config)


def test_checks_against_the_data():
    config = base_config()
    checks.check_against_data(config, 64, 30)
    with pytest.raises(ConfigError, match=r"optim\.batch_size=64 .* 63 "):
        checks.check_against_data(config, 63, 100)
    with pytest.raises(ConfigError, match=r"loss\.num_hard=30 .* 29"):
        checks.check_against_data(config, 64, 29)


# Continuing a run


def test_differences_name_the_field_and_both_values():
    old = json.loads(json.dumps(base_config().to_dict()))
    assert differences(old, base_config()) == []  # tuples come back as lists
    new = changed("optim.momentum", 0.8)
    new.optim.milestones = (300, 360)
    assert differences(old, new) == [
        "optim.milestones: [320, 360] saved, [300, 360] given",
        "optim.momentum: 0.9 saved, 0.8 given",
    ]
    del old["optim"]["momentum"]
    assert "optim.momentum: absent saved, 0.9 given" in differences(old, base_config())


@pytest.mark.parametrize(
    ("platform", "backbone", "strategy"),
    [("cpu", "cifar_resnet", "unroll"), ("gpu", "cifar_resnet", "vmap"), ("gpu", "resnet", "vmap"),
     ("tpu", "cifar_resnet", "packed"), ("tpu", "resnet", "unroll")],
)  # fmt: skip
def test_the_default_strategy_suits_platform_and_network(monkeypatch, platform, backbone, strategy):
    monkeypatch.setattr(build, "platform", lambda mesh: platform)
    config = base_config()
    config.model.backbone = backbone
    assert build.strategy(config, None) == strategy
    config.run.strategy = "vmap"
    assert build.strategy(config, None) == "vmap"


def test_where_a_run_is_computed_may_change_and_what_may_not():
    old, new = base_config(), base_config()
    new.data.dir, new.data.download = "elsewhere", False
    new.run.strategy, new.run.steps_per_call, new.run.data_devices = "packed", 7, 4
    assert differences(old, new) == []
    new.data.name = "cifar10"
    assert differences(old, new) == ["data.name: cifar100 saved, cifar10 given"]


def test_a_field_that_a_runs_file_lacks_takes_its_default():
    stored = json.loads(json.dumps(base_config().to_dict()))
    del stored["optim"]["accumulate"], stored["run"], stored["seed"]
    stored["optim"]["momentum"] = 0.8
    config = complete(stored)
    assert (config.optim.accumulate, config.run.eval_batch, config.seed, config.optim.momentum) == (1, 500, 0, 0.8)
    assert differences(config, base_config()) == ["optim.momentum: 0.8 saved, 0.9 given"]


def test_every_field_is_declared_once_and_described():
    declared = fields()
    assert declared.keys() == flatten(base_config()).keys()
    assert all(field.help for field in declared.values())
    for name, field in declared.items():
        if not name.startswith("teacher."):
            field.check(name, field.default)


def test_numbers_and_texts_without_a_bound_are_few():
    free = {name for name, field in fields().items() if not field.bounds() and not isinstance(field.default, bool)}
    assert free == {
        "data.cache", "data.dir", "data.labels", "data.mean", "data.std", "data.list.train", "data.list.val",
        "data.list.test", "data.list.classes", "data.columns.path", "data.columns.label", "data.columns.split",
        "data.columns.group", "data.group_by", "model.pretrained", "model.template", "model.text",
        "model.class_vectors", "loss.name", "loss.prior_weights", "optim.milestones",
        "teacher.run", "teacher.backbone", "teacher.classifier",
    }  # fmt: skip


@pytest.mark.parametrize(
    "epochs,milestones,warmup,every",
    [
        (400, (320, 360), 5, 10),
        (200, (160, 180), 5, 10),
        (20, (16, 18), 4, 4),
        (8, (7, 8), 2, 1),
        (2, (2,), 2, 1),
        (800, (640, 720), 5, 10),
    ],
)
def test_scale_schedule_keeps_the_fractions(epochs, milestones, warmup, every):
    config = base_config()
    scale_schedule(config, epochs)
    assert config.epochs == epochs and tuple(config.optim.milestones) == milestones
    assert config.optim.warmup_epochs == warmup
    assert config.eval_every == config.checkpoint_every == every
    checks.validate(config)


@pytest.mark.parametrize(("epochs", "milestones"), [(1, ()), (2, (2,)), (4, (4,)), (5, (4, 5))])
def test_the_shortest_schedules_start_at_their_full_rate(epochs, milestones):
    config = base_config()
    scale_schedule(config, epochs)
    assert tuple(config.optim.milestones) == milestones
    checks.validate(config)


@pytest.mark.parametrize(("epochs", "ramp"), [(400, 0), (100, 0), (99, 300), (5, 300)])
def test_the_remedy_for_short_schedules_is_on_below_a_hundred_epochs(epochs, ramp):
    config = cifar_long_tailed(f"epochs={epochs}", "cifar10", num_hard=3)
    assert config.loss.ramp_steps == ramp


@pytest.mark.parametrize(
    "name", ["quickstart", "cifar10lt", "cifar100lt", "places_lt", "inaturalist2018", "imagenet_lt"]
)
def test_every_benchmark_takes_a_pretrained_backbone(name):
    weights = ",pretrained=weights.pth" if name == "imagenet_lt" else ""
    arguments = f"backbone=efficientnet_lite0,image_size=96,method=nil{weights}"
    config = tiny.load_config(name, arguments)
    assert (config.model.backbone, config.model.freeze, config.optim.name) == ("efficientnet_lite", FROZEN, "adamw")
    assert (config.data.image_size, config.data.resize, config.epochs) == (96, 110, recipes.HEAD_EPOCHS)
    checks.validate(config)
    tuned = tiny.load_config(name, f"{arguments},freeze=2,epochs=7")
    assert (tuned.model.freeze, tuned.epochs) == (2, 7)
    with pytest.raises(ConfigError, match="belong to a backbone"):
        tiny.load_config(name, "image_size=96")


def test_imagenets_weights_on_imagenet_lt_are_refused():
    with pytest.raises(ConfigError, match=r"backbone=resnet50: .*pretrained=none"):
        tiny.load_config("imagenet_lt", "backbone=resnet50")
    assert tiny.load_config("imagenet_lt", "backbone=resnet18,pretrained=none").model.freeze == 0
    assert tiny.load_config("imagenet_lt", "backbone=dinov2_small").model.backbone == "dinov2"  # learned without labels


def test_what_goes_with_the_epochs_is_listed():
    config, before = base_config(), base_config()
    scale_schedule(config, 4)
    assert {line.partition(":")[0] for line in differences(before, config)} == {"epochs", *recipes.SCALED}
