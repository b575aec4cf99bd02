"""The notebooks' code runs, cell by cell, on a shrunk configuration."""

import json
import sys

import pytest
from programs import ROOT

SKIPPED = {"setup", "display"}  # need pip's magic and a notebook's screen


@pytest.mark.slow
def test_the_quickstart_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    names = {}
    for cell in json.loads((ROOT / "colab" / "quickstart.ipynb").read_text())["cells"]:
        tags = set(cell["metadata"].get("tags", ()))
        if cell["cell_type"] != "code" or tags & SKIPPED:
            continue
        exec("".join(cell["source"]), names)
        if "parameters" in tags:
            names["workdir"] = str(tmp_path / "run")
            names["config"].update_from_flattened_dict(
                {"epochs": 1, "optim.milestones": (), "model.width": 2, "model.num_experts": 2, "run.data_devices": 1}
            )
    assert names["results"]["epoch"] == 1 and len(names["names"]) == 8
    assert "ensemble" in capsys.readouterr().out
