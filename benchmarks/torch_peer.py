"""The PyTorch process of step_time.py or features.py, seen from there."""

import json
import os
import pathlib
import subprocess

import numpy as np


class Peer:
    """The PyTorch process; it sleeps until it is asked."""

    def __init__(self, python, variables, folder, script="torch_step.py"):
        self.folder = pathlib.Path(folder)
        script = pathlib.Path(__file__).with_name(script)
        environment = os.environ | dict(item.split("=", 1) for item in variables.split(",") if item)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([python, str(script)], env=environment, **pipes)
        self.facts = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the PyTorch process ended; its message is above")
        return json.loads(line)

    def ask(self, do, **request):
        """Sends a request and waits for its answer."""
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        return self._answer()

    def make(self, name, config, batches, spec):
        """Builds a method's step; returns where its initial weights are, and what PyTorch says about it."""
        paths = {key: str(self.folder / f"{name}_{key}.npz") for key in ("weights", "batches")}
        np.savez(paths["batches"], **batches)
        spec = spec | {
            "seed": 0, "depth": config.model.depth, "width": config.model.width, "copies": config.loss.copies,
            "num_experts": config.model.num_experts, "dim": config.contrast.dim if config.contrast.weight else 0,
            "num_hard": config.loss.num_hard, "distill": config.loss.distill_weight, "queue": config.contrast.queue,
            "temperature": config.contrast.temperature, "momentum": config.contrast.momentum,
            "learning_rate": config.optim.learning_rate, "weight_decay": config.optim.weight_decay,
        }  # fmt: skip
        return paths["weights"], self.ask("make", name=name, spec=spec, **paths)

    def timed(self, name, count):
        """Seconds a step, mean over `count` steps."""
        return self.ask("time", name=name, steps=count)["seconds"]
