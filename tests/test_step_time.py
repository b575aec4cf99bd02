"""The script behind docs/benchmarks.md times the step that a run has, and hands PyTorch the same batches."""

import json
import pathlib
import sys

import numpy as np
import programs
import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "step_time.py"
sys.path.insert(0, str(SCRIPT.parent))

import step_time  # noqa: E402


def test_pytorch_is_given_all_copies_of_an_image_and_its_key_view(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--batch=4"])
    args = step_time.make_parser().parse_args()
    config = step_time.make_config(args, "nclpp", next(iter(step_time.variants(args))))
    batches = step_time.ready_batches(config, step_time.make_data())
    copies = config.loss.copies
    assert copies == 4 and batches["images"].shape[1:] == (4 * copies, 32, 32, 3)
    assert batches["labels"].shape[1:] == (4 * copies,) and batches["key_images"].shape[1:] == (4, 32, 32, 3)
    first, flipped = batches["images"][:, :4], batches["key_images"][:, :, :, ::-1]
    np.testing.assert_allclose(first, flipped, atol=1e-6)


@pytest.mark.slow
def test_a_step_is_timed_with_augmentation_and_without(tmp_path, cache):
    out = tmp_path / "times.json"
    small = ["--methods=ce", "--depth=8", "--num_experts=1", "--batch=8", "--repeats=2", "--warmup=0"]
    programs.run([sys.executable, str(SCRIPT), *small, f"--out={out}"], cache)
    (record,) = json.loads(out.read_text())["records"]
    assert record["method"] == "ce" and record["seconds"].keys() == {"augmented", "ready"}
    assert all(len(values) == 2 and min(values) > 0 for values in record["seconds"].values())
