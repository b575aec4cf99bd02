"""The ablation command: its table from given results, and the whole command on a tiny run."""

import re
import shutil
import signal
import sys

import programs
import pytest

from ncl_jax import cli
from ncl_jax.cli import ablate, report
from ncl_jax.report import ablation


def result(accuracy, few, speed=100.0, num_experts=2):
    figures = {
        "accuracy": accuracy,
        "many": 0.9,
        "medium": 0.5,
        "few": few,
        "nll": 1.0,
        "ece": 0.1,
        "per_class": [0.9, few],
    }
    disagreement = {"top1": {"all": 0.1, "few": 0.2}}
    return {
        "ensemble": figures, "experts": [figures] * num_experts, "disagreement": disagreement,
        "class_counts": [100, 2], "images_per_second": speed,
    }  # fmt: skip


def test_table_shows_mean_and_deviation_over_seeds():
    text = ablation.table({"ce": [result(0.4, 0.0), result(0.5, 0.2)], "ncl": [result(0.6, None)], "nil": []})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert rows[2] == ["ce", "2", "45.0 ± 7.1", "45.0 ± 7.1", "90.0 ± 0.0", "50.0 ± 0.0", "10.0 ± 14.1",
                       "10.0 ± 0.0", "10.0 ± 0.0", "20.0 ± 0.0", "-"]  # fmt: skip
    assert rows[3][:3] == ["ncl", "1", "60.0"] and rows[3][6] == "-"
    assert rows[4] == ["nil", "0", *["-"] * 9]


def test_table_shows_a_steps_cost_beside_balanced_softmax_with_as_many_experts():
    runs = {
        "balanced_softmax": [result(0.4, 0.0, speed) for speed in (90.0, 120.0, 100.0)],
        "ncl": [result(0.4, 0.0, 80.0)],
        "nclpp": [result(0.4, 0.0, 20.0, num_experts=3)],
    }
    assert [line.split("|")[-2].strip() for line in ablation.table(runs).splitlines()[2:]] == ["1.00", "1.25", "-"]


# The quickstart with the one-layer backbone, which the file brings along.
CONFIG = f"""
import runpy
runpy.run_path({str(programs.ROOT / "tests" / "one_layer.py")!r})
quickstart = runpy.run_path({str(programs.ROOT / "configs" / "quickstart.py")!r})

def get_config(arguments):
    config = quickstart["get_config"](arguments)
    config.model.backbone = "one_layer"
    return config
"""


def command(workdir, *arguments):
    fields = programs.SHRINK | dict.fromkeys(("epochs", "eval_every", "checkpoint_every"), 20)
    fields |= {"optim.milestones": "(20,)", "optim.batch_size": 256}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    (workdir / "quick.py").write_text(CONFIG)
    program = [sys.executable, "-m", "ncl_jax", "ablate", f"--config={workdir}/quick.py", f"--workdir={workdir}/runs"]
    return [*program, "--methods=ce,nil", "--seeds=1", *arguments, *overrides]


@pytest.mark.slow
def test_an_ablation_is_stopped_repeated_and_reports_a_failed_run(tmp_path, cache):
    """SIGTERM in its first run; then a run whose directory holds something else; then nothing is in the way."""
    output, code = programs.stop_after_epoch(command(tmp_path), cache, tmp_path / "runs" / "ce-0", 1, signal.SIGTERM)
    assert code == 143 and "saved: the same command continues" in output and "stopped: the same command" in output
    (tmp_path / "runs" / "nil-0" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "runs" / "nil-0" / "config.json").write_text("{}")
    output = programs.run(command(tmp_path), cache, code=1)
    assert "continuing at step" in output
    assert "failed: nil, seed 0: exit code 1" in output and "holds a run of another configuration" in output
    assert "| ce | 1 |" in output and "| nil | 0 |" in output
    shutil.rmtree(tmp_path / "runs" / "nil-0")
    output = programs.run(command(tmp_path), cache)
    assert "holds this run, finished" in output and output.count("compiled the training step") == 1
    assert "| ce | 1 |" in output and "| nil | 1 |" in output
    assert (tmp_path / "runs" / "table.md").read_text().startswith("| method |")
    assert (tmp_path / "runs" / "per_class.png").stat().st_size > 1000
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "2 runs on" in page and report.make([tmp_path / "runs"]).count("<h2") == page.count("<h2")


def test_a_table_is_left_as_it_was_only_where_there_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate.launch, "run", lambda launcher, jobs: [1] * len(jobs))
    arguments = ["--config=quickstart", "--methods=ce", "--seeds=1", f"--workdir={tmp_path}"]
    message, code = cli.attempt("ablate", arguments)
    assert code == 1 and "failed: ce, seed 0: exit code 1" in message
    assert "left as it was" not in capsys.readouterr().out and not (tmp_path / "table.md").exists()
    (tmp_path / "table.md").write_text("of before")
    assert cli.attempt("ablate", arguments)[1] == 1
    assert "table.md is not changed" in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == "of before"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--methods=nlc", "--methods='nlc' .*did you mean"),
        ("--methods=ce,ncl,ce", "method 'ce' .*twice"),
        ("--epochs=3", "unknown argument .--epochs=3"),
        ("--seeds=0", "--seeds=0 must be"),
        ("--jobs=0", "--jobs=0 must be"),
        ("--jobs=2 --slurm=--gpus=1", "--jobs=2 is for runs on this machine"),
        ("--config.seed=1", "--config.seed=1"),
        ("--config=quickstart:epochs=2,method=ce", "quickstart:epochs=2,method=ce: leave method out"),
    ],
)
def test_bad_arguments_are_named(argument, message):
    printed, code = cli.attempt("ablate", ["--config=configs/quickstart.py", *argument.split()])
    assert code == 1 and re.search(message, printed)
