"""One network that learns from a finished ensemble: its loss by hand, and its run from the command line."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import one_layer
import programs
import pytest

import ncl_jax
from ncl_jax import cli, methods
from ncl_jax.errors import ConfigError
from ncl_jax.runs.distill import student

assert one_layer.OneLayer  # the runs below have it
FIELDS = {"num_hard": 2, "ramp_steps": 0, "hard_weight": 0.5, "distill_weight": 0.6, "hard_distill_weight": 0.4}
COUNTS = np.array([60, 30, 10, 5])


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def divergence(target, other):
    return (target * (np.log(target) - np.log(other))).sum(-1).mean()


@pytest.mark.parametrize("non_hard", ["zero", "exclude"])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_loss_by_hand(non_hard, balanced):
    rng = np.random.default_rng(0)
    scores, teacher = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    labels = np.array([0, 1, 2, 3, 0])
    objective = methods.objective("distilled")(COUNTS.tolist(), balanced=balanced, non_hard=non_hard, **FIELDS)
    outputs = {"logits": jnp.asarray(scores[None]), "teacher": jnp.asarray(teacher[None])}
    parts, memory = objective.compute(outputs, jnp.asarray(labels), jnp.zeros((), jnp.int32), "memory")
    prior = np.log(COUNTS) if balanced else 0
    rows = np.arange(5)

    def hard(raw):
        """The target and the best other class."""
        others = np.where(rows[:, None] * 0 + np.arange(4) == labels[:, None], -np.inf, raw)
        mask = np.zeros((5, 4), bool)
        mask[rows, labels] = mask[rows, others.argmax(-1)] = True
        return mask

    def partial(raw, mask):
        if non_hard == "zero":
            return softmax(np.where(mask, raw + prior, 0))
        return softmax(np.where(mask, raw + prior, -1e9))

    def of_hard(target, other):
        inside = hard(teacher)
        p, q = np.where(inside, target, 1), np.where(inside, other, 1)
        if non_hard == "zero":
            return divergence(target, other)
        return (p * (np.log(p) - np.log(q))).sum(-1).mean()

    expected = {
        "nil": -np.log(softmax(scores + prior)[rows, labels]).mean(),
        "nil_hard": -0.5 * np.log(partial(scores, hard(scores))[rows, labels]).mean(),
        "nbod": 0.6 * divergence(softmax(teacher + prior), softmax(scores + prior)),
        "nbod_hard": 0.4 * of_hard(partial(teacher, hard(teacher)), partial(scores, hard(teacher))),
    }
    assert memory == "memory" and list(parts) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "teacher"
    programs.finish(programs.one_layer(path, epochs=2, optim__milestones="(2,)"))
    return path


def distill(teacher, workdir, *fields):
    return cli.attempt("distill", [f"--run={teacher}", f"--workdir={workdir}", "--config.checkpoint_every=1", *fields])


@pytest.mark.slow
def test_a_student_learns_and_goes_on_without_its_teacher(teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "teacher")
    assert distill(moved, tmp_path / "student") == ("", 0)
    model = ncl_jax.load(tmp_path / "student")
    assert model.config.model.num_experts == 1 and model.config.teacher.num_experts == 2
    whole = programs.content(tmp_path / "student")
    assert whole["results"]["pretrained"]["teacher"]["run"] == str(moved)
    lines = [line["parts"] for line in whole["lines"] if line["kind"] == "train"]
    assert all(line["nbod"] > 0 and line["nbod_hard"] > 0 for line in lines)
    last = max((tmp_path / "student" / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(last)
    (tmp_path / "student" / "results.json").unlink()
    shutil.rmtree(moved)
    assert distill(moved, tmp_path / "student") == ("", 0)
    assert programs.content(tmp_path / "student") == whole


@pytest.mark.slow
def test_parts_of_a_batch_see_their_teacher(teacher, tmp_path):
    for name, parts in (("whole", 1), ("parts", 2)):
        assert distill(teacher, tmp_path / name, f"--config.optim.accumulate={parts}", "--config.epochs=1",
                       "--config.optim.milestones=()") == ("", 0)  # fmt: skip
    whole, parts = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("whole", "parts")
    )
    np.testing.assert_allclose(parts["parts"]["nbod"], whole["parts"]["nbod"], rtol=0.05)  # batch statistics differ


@pytest.mark.slow
def test_a_students_settings_are_those_of_one_network_that_learns(teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "teacher")
    stored = json.loads((other / "config.json").read_text())
    stored["loss"] |= {"distill_weight": 0.0, "hard_distill_weight": 0.0}
    stored["model"] |= {"freeze": 2, "pretrained": "weights.pth"}
    stored["run"]["expert_devices"], stored["optim"]["backbone_scale"] = 2, 0.1
    (other / "config.json").write_text(json.dumps(stored))
    made = student(other)
    assert (made.loss.distill_weight, made.loss.hard_distill_weight) == (0.6, 0.6)
    assert (made.model.freeze, made.model.pretrained, made.model.num_experts) == (0, "", 1)
    assert (made.run.expert_devices, made.optim.backbone_scale) == (1, 1.0)
    assert made.loss.balanced
    stored["prior_power"] = 1.0
    stored["loss"] |= {"name": "ldam", "label_smoothing": 0.1}  # of scores that are meant for the training prior
    (other / "config.json").write_text(json.dumps(stored))
    made = student(other)
    assert not made.loss.balanced and made.loss.label_smoothing == 0


@pytest.mark.slow
def test_what_cannot_be_a_teacher(teacher, tmp_path):
    assert "--run" in cli.attempt("distill", [])[0]
    with pytest.raises(ConfigError, match="is not the configuration of a run"):
        student(tmp_path)
    unfinished = shutil.copytree(teacher, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    assert "has no results yet: let the run end" in distill(unfinished, tmp_path / "a")[0]
    assert "holds a run that learned from no other" in distill(teacher, teacher)[0]
    assert "unknown field 'colour'" in distill(teacher, tmp_path / "b", "--config.colour=red")[0]
    assert (
        "loss.copies=2, contrast.weight=0.0: loss.name=distilled has neither"
        in distill(teacher, tmp_path / "c", "--config.loss.copies=2")[0]
    )
    assert "do not belong together" in distill(teacher, tmp_path / "d", "--config.teacher.run=")[0]
    other = shutil.copytree(teacher, tmp_path / "other")
    facts = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(facts | {"class_names": facts["class_names"][::-1]}))
    assert "was trained on other classes" in distill(other, tmp_path / "e")[0]
