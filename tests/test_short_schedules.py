"""The script behind docs/short_schedules.md: early training, and what it keeps of every run."""

import json
import pathlib
import sys

import pytest
from tiny import tiny

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "short_schedules.py"
sys.path.insert(0, str(SCRIPT.parent))

import short_schedules  # noqa: E402


@pytest.mark.slow
def test_early_training_logs_every_step_and_learns():
    config = tiny("epochs=1,method=ncl_supervised", optim__batch_size=32, optim__learning_rate=0.06)
    history, accuracy = short_schedules.train(config, 60)
    losses = history["parts"]["nil"]
    assert losses.shape == history["grad_norm"].shape == history["dead_features"].shape == (60,)
    assert losses[-10:].mean() < losses[:10].mean() and accuracy > 0.15  # chance is 0.1


def test_a_repeated_command_goes_on_after_the_runs_that_are_there(tmp_path, monkeypatch):
    results, tried = tmp_path / "runs.jsonl", []
    results.write_text(json.dumps({"rate": 0.1, "seed": 0, "accuracy": 0.5}) + "\n")
    monkeypatch.setattr(short_schedules, "RESULTS", results)
    monkeypatch.setattr(short_schedules, "REMEDIES", {"none": {}})
    monkeypatch.setattr(short_schedules, "RATES", (0.1,))
    for kind in ("remedy", "rate"):
        monkeypatch.setattr(
            short_schedules, f"try_{kind}", lambda value, seed, _: tried.append((value, seed)) or {"accuracy": 0.5}
        )
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--data_dir=DIR", "--seeds", "0", "1"])
    short_schedules.main()
    short_schedules.main()
    assert tried == [("none", 0), ("none", 1), (0.1, 1)]
    assert len(results.read_text().splitlines()) == 4


@pytest.mark.parametrize("kind", ["remedies", "rates"])
def test_a_table_has_a_line_for_what_was_run(kind):
    figures = dict.fromkeys(("largest_gradient", "largest_dead", "dead", "feature_mean", "lowest_feature_mean"), 0.5)
    record = figures | {"balanced_cross_entropy": 2.0, "accuracy": 0.25, "seed": 0}
    records = [record | {"remedy": "clipped to 5"}, record | {"rate": 0.1}, record | {"rate": 0.1, "accuracy": 0.35}]
    lines = getattr(short_schedules, f"{kind}_table")(records).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith({"remedies": "| 25.0 % (25.0 to 25.0) |", "rates": "| 30.0 % (25.0 to 35.0) |"}[kind])
