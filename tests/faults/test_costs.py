"""What costs too much, and what is no longer finite: refused before anything is made, and named by its cause."""

import dataclasses
import math
import types

import harness
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from harness import Fault
from test_own_images import make_folder

from ncl_jax import cli, methods
from ncl_jax.config import build, build_data, costs
from ncl_jax.config.fields import base_config, fields
from ncl_jax.data.images import examine
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError, DataError, Diverged
from ncl_jax.evaluation import metrics
from ncl_jax.field import LARGEST_FLOAT, SMALLEST_FLOAT
from ncl_jax.methods.ncl import TERMS
from ncl_jax.models import FROZEN
from ncl_jax.report import tables
from ncl_jax.runs import divergence as causes
from ncl_jax.runtime import limits
from ncl_jax.training import steps

TRAIN = (*harness.TRAIN, "--config.run.conv=xla")  # no kernel of our own is compiled
GIGABYTE = 10**9
REAL = ("model.backbone=cifar_resnet", "model.depth=8")  # a network whose width counts
MOCO = ("contrast.weight=1.0",)


def costly(said, *changed, flags=()):
    """A run that is refused: the pattern of its message, and what is changed of the prepared run's command."""
    names = {field.partition("=")[0] for field in changed}
    kept = [word for word in TRAIN if word.removeprefix("--config.").partition("=")[0] not in names]
    given = [f"--config.{field}" for field in changed]
    return Fault(" ".join((*changed, *flags)), (*kept, "--workdir={tmp}/new", *given, *flags), f"^error: .*{said}")


DISTILLED = ("teacher.run=x", "loss.name=distilled", "loss.distill_weight=1.0")
TEACHER = ("teacher.backbone=cifar_resnet", "teacher.classifier=linear")
STREAM = ("data.feed=stream", "optim.batch_size=512")
COSTLY = [
    costly("model.width=16384.* at least .* GB.* has 25.0 GB: model.width can be about", *REAL, "model.width=16384"),
    costly("contrast.queue=16000000.*contrast.dim=9000.* GB", *MOCO, "contrast.queue=16000000", "contrast.dim=9000"),
    costly("data.image_size=10000.* GB.*data.image_size can be about", "data.image_size=10000"),
    costly("optim.batch_size=1024.*data.image_size=512.* GB", *REAL, "optim.batch_size=1024", "data.image_size=512",
           "model.width=64"),
    costly("data.image_size=2000.*run.eval_batch=1000: .* GB", "run.eval_batch=900000", "data.image_size=2000",
           "data.feed=stream", "optim.batch_size=1"),
    costly("data.threads=1000.* GB", *STREAM, "data.threads=1000", "data.image_size=224"),
    costly("data.workers=256.* GB.*data.workers can be about", *STREAM, "data.workers=256"),
    costly("loss.copies=32.* GB", *REAL, "loss.copies=32", "loss.name=nclpp", "data.image_size=200"),
    Fault("seeds", ("ablate", "--config=quickstart", "--workdir={tmp}/new", "--seeds=2147483647"), "--seeds=2147483647 must"),
    costly("--extend=2147483647 must be at most", flags=("--extend=2147483647",)),
    costly("epochs=1000000, --extend=1000000: .*2147483647", "epochs=1000000", "optim.batch_size=1", "eval_every=9",
           flags=("--extend=1000000",)),
    costly("teacher.backbone='' must be one of", *DISTILLED),
    costly("teacher.width=0 must be at least 1", *DISTILLED, *TEACHER),
    costly("teacher.depth=9 must be, for a cifar_resnet", *DISTILLED, *TEACHER, "teacher.width=4", "teacher.depth=9",
           "teacher.cosine_scale=1.0", "teacher.num_experts=1"),
    costly("data.mean=.*must be numbers", f"data.mean=({'1' * 400},0,0)"),
    costly("optim.milestones=.*must be numbers", f"optim.milestones=({'1' * 400},)"),
    costly("loss.prior_weights=.*must be numbers", "loss.prior_weights=(1e39,)"),
    costly("data.std=.*data.mean=.*e.29", "data.std=(1e-30,1e-30,1e-30)"),
]  # fmt: skip


@pytest.mark.parametrize("fault", COSTLY, ids=lambda fault: fault.name[:60])
def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(fault, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(limits, "host_memory", lambda: 25 * GIGABYTE)
    (tmp_path / "run").mkdir()
    harness.attempt(fault, tmp_path / "run", tmp_path, capfd)
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def planned():
    """A run's configuration, data and plan."""
    fields = {"run__data_devices": 1, "run__conv": "xla", "model__backbone": "cifar_resnet"}
    config = tiny.tiny("method=ncl", optim__batch_size=64, **fields)
    config.model.depth, data = 8, build_data.data(config)
    return config, data, build.make_training_plan(config, data.facts, build.mesh(config))


def test_an_accelerator_is_asked_for_its_own_memory(planned, monkeypatch):
    config, data, plan = planned
    monkeypatch.setattr(costs, "platform", lambda mesh: "gpu")
    for most, host, said in (
        (10**7, 10**12, "optim.batch_size=64.*, and a cpu has 10.0 MB"),
        (10**12, 10**6, "data.dir=.*decoded images, and this machine has 1.0 MB"),
    ):
        monkeypatch.setattr(limits, "device_memory", lambda device, most=most: most)
        monkeypatch.setattr(limits, "host_memory", lambda host=host: host)
        with pytest.raises(ConfigError, match=said):
            costs.check(plan, config, data, 0)
    monkeypatch.setattr(limits, "device_memory", lambda device: None)  # one that does not say
    monkeypatch.setattr(limits, "host_memory", lambda: 10**12)
    assert costs.check(plan, config, data, 0).step.shape == ()


def test_features_that_the_devices_do_not_hold_must_fit_into_the_machine(monkeypatch):
    config = tiny.tiny("method=ce", run__data_devices=1, data__augment="none")
    config.model.freeze, config.data.cached_views, config.data.cache = FROZEN, 64, "none"
    data = build_data.data(config)
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    size = len(data.train) * 65 * math.prod(plan.input_shape) * 4
    monkeypatch.setattr("ncl_jax.data.feeds.features.LARGEST_RESIDENT", size - 1)
    monkeypatch.setattr(limits, "host_memory", lambda: size)
    with pytest.raises(ConfigError, match=r"data\.cached_views=64: .*features of the training .*cached_views can be"):
        costs.check(plan, config, data, 0)
    kept = dataclasses.replace(plan, loading=plan.loading._replace(cache=""))  # they stay in the cache
    assert costs.check(kept, config, data, 0).step.shape == ()
    monkeypatch.setattr(limits, "host_memory", lambda: 2 * size)
    assert costs.check(plan, config, data, 0).step.shape == ()


def test_the_estimate_is_below_what_the_compiler_takes():
    fields = {"run__data_devices": 1, "run__conv": "xla", "data__augment": "none", "model__num_experts": 1}
    config = tiny.tiny("method=ce", optim__batch_size=64, **fields)
    data = build_data.data(config)
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    shapes = costs.state_shapes(plan)
    step = tiny.plans.train_step(plan)
    batch = tiny.Batch(jax.ShapeDtypeStruct((64, 1, 28, 28, 3), np.uint8), jax.ShapeDtypeStruct((64,), np.int32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    needs = jax.jit(step).lower(shapes, key, batch).compile().memory_analysis()
    estimate = [*costs.of_state(plan, config, shapes), costs.of_inputs(plan), costs.of_convolutions(plan, shapes)]
    inputs, outputs = (part.size for part in estimate[-2:])
    assert inputs == 64 * 28 * 28 * 3 * 4 and outputs == 64 * 14 * 14 * 4 * 4
    assert sum(part.size for part in estimate) <= needs.argument_size_in_bytes + needs.temp_size_in_bytes


def test_a_compiled_program_that_is_too_large_is_refused(planned, monkeypatch):
    program = jax.jit(lambda x: x @ x).lower(jnp.zeros((8, 8))).compile()
    costs.check_program(program, planned[2].mesh.local_devices, "training step")
    monkeypatch.setattr(limits, "host_memory", lambda: 100)
    with pytest.raises(ConfigError, match=r"training step takes .* optim.batch_size.*optim.accumulate"):
        costs.check_program(program, planned[2].mesh.local_devices, "training step")


def test_what_would_fit_is_the_largest_that_does():
    parts = [costs.Part("a", 100.0, {"n": 2}), costs.Part("b", 10.0, {})]
    assert costs.fitting(parts, "n", 10, 110) == 10
    assert costs.fitting(parts, "n", 10, 59) == 7  # 49 + 10
    assert costs.fitting(parts, "n", 10, 9) == 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 3000 * 1024),
        (
            {"proc/self/cgroup": "0::/a/b", "cgroup/a/memory.max": "5000", "cgroup/a/b/memory.max": "max"},
            5000 + 1024000,
        ),
        ({"proc/self/cgroup": "4:memory:/x", "cgroup/memory/memory.limit_in_bytes": "7000"}, 7000 + 1024000),
        ({"proc/self/cgroup": "4:memory:/x", "cgroup/memory/x/memory.limit_in_bytes": str(2**62)}, 3000 * 1024),
        ({"proc/self/cgroup": "4:cpu:/x", "cgroup/cpu/x/memory.limit_in_bytes": "9"}, 3000 * 1024),
    ],
)
def test_the_machine_s_memory_is_what_its_groups_leave(files, expected, tmp_path, monkeypatch):
    for name, text in {"proc/meminfo": "MemTotal: 2000 kB\nMemFree: 1 kB\nSwapTotal: 1000 kB\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    assert limits.host_memory() == expected


def test_values_at_the_edge_of_float32_are_what_they_were():
    for name, field in fields().items():
        if type(field.default) is float and field.at_most is None and field.below is None:
            field.check(name, LARGEST_FLOAT)
        if type(field.default) is float and field.above == 0:
            field.check(name, SMALLEST_FLOAT)
        if type(field.default) is float and field.at_least == 0:
            field.check(name, -0.0)  # 0 with a sign


# What is no longer finite


def metrics_of(loss=1.0, gradient=1.0, features=1.0, **parts):
    return {"loss": loss, "parts": parts or {"nil": 1.0}, "grad_norm": gradient, "feature_mean": features}


NAN = math.nan
CAUSES = [
    ({}, metrics_of(loss=NAN, gradient=NAN, nil=NAN), 5, "optim.learning_rate"),
    ({}, metrics_of(gradient=NAN), 5, "optim.learning_rate"),
    ({}, metrics_of(loss=NAN, features=NAN, nil=NAN), 5, "optim.learning_rate"),
    ({"data.std": (1e-9, 1e-9, 1e-9)}, metrics_of(loss=NAN, features=NAN, nil=NAN), 5, "data.mean=.*data.std="),
    ({"contrast.temperature": 1e-30}, metrics_of(NAN, contrast=NAN, nil=1.0), 0, "contrast.*contrast.temperature=1e-30"),
    ({"contrast.temperature": 1e-30}, metrics_of(NAN, contrast=NAN, nil=1.0), 7, "contrast.temperature=1e-30"),
    ({"loss.hard_weight": 1e30}, metrics_of(1e28, NAN, nil=2.0, nil_hard=1e28), 3, "nil_hard.*loss.hard_weight=1e.30"),
    ({"loss.hard_weight": 2.0}, metrics_of(9.0, NAN, nil=2.0, nil_hard=7.0), 3, "optim.learning_rate"),
    ({"loss.hard_weight": 2.0}, metrics_of(9.0, NAN, nil=2.0, nil_hard=7.0), 0, "nil_hard.*loss.hard_weight=2.0"),
    ({"model.classifier": "linear"}, metrics_of(NAN, nil=NAN), 0, "nil.*loss.name=ncl"),
    ({"model.classifier": "cosine"}, metrics_of(NAN, nil=NAN), 0, "nil.*model.cosine_scale=16.0"),
    ({"optim.weight_decay": 1e30}, metrics_of(NAN, nil=NAN), 1, "Lower optim.weight_decay=1e.30"),
    ({"model.pretrained": "w.pth"}, metrics_of(NAN, features=NAN, nil=NAN), 0, "model.pretrained=w.pth"),
    ({"precision": "bfloat16"}, metrics_of(NAN, features=NAN, nil=NAN), 0, "precision=bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "values", "step", "said"), CAUSES)
def test_the_first_thing_that_is_not_finite_names_its_fields(changed, values, step, said):
    config = base_config()
    config.update_from_flattened_dict(changed)
    of_terms = {"contrast": ("contrast.temperature", "contrast.weight"), **TERMS}
    named = causes.cause(config, of_terms, values, step)
    assert harness.re.search(said, named), named
    assert said == "optim.learning_rate" or "optim.learning_rate" not in named


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_term_of_a_method_knows_its_fields(method):
    config = tiny.tiny(f"method={method}")
    objective = build.objective(config, tiny.FACTS.class_counts)
    copies, experts = config.loss.copies, config.model.num_experts
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)  # noqa: E731
    outputs = {"features": shape(experts, 4 * copies, 5), "logits": shape(experts, 4 * copies, 4)}
    outputs |= {"projection": shape(experts, 4, 3), "keys": shape(experts, 4, 3)}
    memory = jax.eval_shape(lambda: objective.init_memory(jax.random.key(0), outputs))
    labels = jax.ShapeDtypeStruct((4 * copies,), jnp.int32)
    parts, _ = jax.eval_shape(objective.compute, outputs, labels, jax.ShapeDtypeStruct((), jnp.int32), memory)
    assert parts.keys() <= objective.fields.keys()
    assert {name for names in objective.fields.values() for name in names} <= fields().keys()


STATES = [
    ({"memory": {"contrast": {"keys": NAN}}}, "memory.*contrast.*contrast.momentum="),
    ({"memory": {"seen": math.inf}}, "memory.*seen.*loss.name=ncl"),
    ({"params": {"backbone": NAN}}, "params.*backbone.*optim.learning_rate"),
    ({"batch_stats": {"bn": NAN}}, "batch_stats.*bn.*optim.learning_rate"),
]


@pytest.mark.parametrize(("changed", "said"), STATES)
def test_a_state_that_is_not_finite_stops_the_run_before_it_is_saved(changed, said):
    changed = jax.tree.map(lambda value: jnp.array([1.0, value]), changed)
    state = steps.TrainState(jnp.int32(4), {"w": jnp.ones(2)}, {}, {"count": jnp.int32(4)}, ())._replace(**changed)
    checkpoints = types.SimpleNamespace(wait=lambda: None, steps=lambda: [2], path="here")
    run = types.SimpleNamespace(
        config=base_config(), state=state, are_finite=steps.are_finite, checkpoints=checkpoints, term_fields={}
    )
    history = {name: np.ones(4) for name in ("loss", "grad_norm")} | {"parts": {"nil": np.ones(4)}}
    with pytest.raises(Diverged, match=f"after step 4 .*{said}") as raised:
        causes.check_finite(run, history, 0)
    assert "step 2 in here" in str(raised.value)
    run.state = state._replace(params={"w": jnp.ones(2)}, batch_stats={}, memory=())
    causes.check_finite(run, history, 0)


OWN = """
import jax.numpy as jnp
from ncl_jax.methods import Objective

def quiet(class_counts, **_):
    def compute(outputs, labels, step, memory):
        return {"nil": outputs["logits"].var()}, memory + jnp.where(step == 2, jnp.nan, 1.0)
    return Objective(compute, lambda key, outputs: jnp.zeros(3))
"""


@pytest.mark.slow
def test_a_method_s_own_state_is_looked_at(tmp_path, capfd):
    (tmp_path / "own.py").write_text(OWN)
    others = [word for word in TRAIN if "epochs" not in word and "milestones" not in word]
    name = f"{tmp_path}/own.py:quiet"
    command = (*others, f"--config.loss.name={name}", "--workdir={tmp}/new", "--config.epochs=1",
               "--config.optim.milestones=(1,)")  # fmt: skip
    fault = Fault("quiet", command, rf"after step 4 .*memory.* no checkpoint yet.*loss.name={name}")
    (tmp_path / "run").mkdir()
    harness.attempt(fault, tmp_path / "run", tmp_path, capfd)
    assert not list((tmp_path / "new" / "checkpoints").glob("[0-9]*"))


# Means over classes, and copies of images


def summary(counts, right):
    """Figures of one expert with so many test images and right answers of each class."""
    bins = np.zeros((2, metrics.CALIBRATION_BINS, 3))
    bins[:, -1] = sum(counts), sum(counts), sum(right)
    none = np.zeros(len(counts))
    named = np.array([counts, counts])
    sums = metrics.Sums(np.array(counts), np.array([right, right]), named, np.zeros(2), bins, none, none)
    groups = {"many": np.array([1, 1, 0], bool), "medium": np.zeros(3, bool), "few": np.array([0, 0, 1], bool)}
    return metrics.summarize(sums, {"papers": groups}) | {"class_counts": [200, 200, 5]}


def test_accuracy_is_a_mean_over_images_and_over_classes():
    found = summary((8, 2, 4), (8, 1, 1))
    means = found["class_means"]["ensemble"]
    assert found["ensemble"]["many"] == pytest.approx(0.9) and means["many"] == pytest.approx(0.75)
    assert found["ensemble"]["accuracy"] == pytest.approx(10 / 14) and means["accuracy"] == pytest.approx(1.75 / 3)
    assert means["medium"] is None and found["class_means"]["experts"] == [means]
    _, row, groups, *_ = tables.table(found).splitlines()
    assert row.split()[2:4] == ["58", "71"]  # the network: what counts comes first
    assert groups == "groups as means of classes: many 75, few 25"


def test_means_over_classes_are_shown_where_they_differ_alone():
    found = summary((4, 4, 4), (3, 1, 2))
    assert found["class_means"]["ensemble"]["many"] == found["ensemble"]["many"]
    assert "as means of classes" not in tables.table(found)
    old = summary((8, 2, 4), (8, 1, 1))
    del old["class_means"], old["test_counts"]  # results of before they were computed
    assert "of classes" not in tables.table(old) and "71.43" in tables.table(old)
    untested = summary((8, 0, 4), (8, 0, 1))["class_means"]["ensemble"]
    assert untested["many"] == 1.0 and untested["accuracy"] == pytest.approx(0.625)


def test_copies_of_images_are_counted_as_images(tmp_path, capfd):
    def examined(*contents):
        sizes, flat = np.ones((len(contents), 2)), np.zeros(len(contents), bool)
        return examine.Examined(
            sizes, [c.encode() for c in contents], flat, np.zeros((len(contents), 16, 16), np.uint8), []
        )

    train = examined(*"a" * 3000, "b", "", "")
    test = examined(*"a" * 1500, "b", "c", "")
    assert examine.shared(train, test) == [*((0, row) for row in range(1500)), (3000, 1500)]
    split = Split(np.zeros((6, 1, 1, 3), np.uint8), np.array([0, 0, 1, 1, 1, 0]))
    assert examine.repeated(split, examined(*"aaabb", "")) == ([(0, 1), (3, 4)], [(0, 2)])

    root = make_folder(tmp_path / "data", ("train",), {"ant": 12, "bee": 12})
    make_folder(root, ("test",), {"ant": 2, "bee": 2})
    picture = (root / "train" / "ant" / "0.jpg").read_bytes()
    for number in range(5):
        (root / "train" / "ant" / f"gone {number}.jpg").write_bytes(picture)
    for number in range(3):
        (root / "test" / "ant" / f"gone {number}.jpg").write_bytes(picture)
    message, code = cli.attempt(
        "inspect", [f"--config=folder:dir={root},image_size=16", f"--picture={tmp_path}/classes.png"]
    )
    output = capfd.readouterr().out + message
    assert code == 1 and DataError.__name__ not in output
    assert "train and in test: 3 of test" in output, output
    assert "repeat an earlier one of their class: 5\n    train train/ant/0.jpg is train train/ant/gone 0.jpg" in output
