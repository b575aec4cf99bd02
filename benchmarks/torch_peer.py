"""The PyTorch process of step_time.py or features.py, seen from there."""

import atexit
import json
import os
import pathlib
import signal
import subprocess

import numpy as np

INSTALLED = ""  # environment variables of a PyTorch process: none of its own
KEPT = "MALLOC_MMAP_THRESHOLD_=4294967296,MALLOC_TRIM_THRESHOLD_=8589934592,MALLOC_TOP_PAD_=268435456"
WAITING = {"": "", "active": "OMP_WAIT_POLICY=active", "passive": "OMP_WAIT_POLICY=passive,KMP_BLOCKTIME=0"}


def environments():
    """What a PyTorch process may be told, by name: whether freed memory is kept, and how idle threads wait."""
    memory = {"as installed": INSTALLED, "memory kept": KEPT}
    return {
        ", ".join(filter(None, (name, waits and f"{waits} waiting"))): ",".join(filter(None, (kept, waiting)))
        for name, kept in memory.items()
        for waits, waiting in WAITING.items()
    }


class Peer:
    """The PyTorch process; it is stopped until it is asked, as its threads may wait actively."""

    def __init__(self, python, variables, folder, script="torch_step.py"):
        self.folder = pathlib.Path(folder)
        script = pathlib.Path(__file__).with_name(script)
        environment = os.environ | dict(item.split("=", 1) for item in variables.split(",") if item)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([python, str(script)], env=environment, **pipes)
        atexit.register(self.close)  # one that is stopped would not notice the end
        self.facts = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the PyTorch process ended; its message is above")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def ask(self, do, **request):
        """Sends a request and waits for its answer."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        return self._answer()

    def close(self):
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def make(self, name, config, batches, spec):
        """Builds a method's step; returns where its initial weights are, and what PyTorch says about it."""
        paths = {key: str(self.folder / f"{name}_{key}.npz") for key in ("weights", "batches")}
        np.savez(paths["batches"], **batches)
        spec = spec | {
            "seed": 0, "large": config.model.backbone == "resnet",
            "depth": config.model.depth, "width": config.model.width, "copies": config.loss.copies,
            "num_experts": config.model.num_experts, "dim": config.contrast.dim if config.contrast.weight else 0,
            "num_hard": config.loss.num_hard, "distill": config.loss.distill_weight, "queue": config.contrast.queue,
            "temperature": config.contrast.temperature, "momentum": config.contrast.momentum,
            "learning_rate": config.optim.learning_rate, "weight_decay": config.optim.weight_decay,
        }  # fmt: skip
        return paths["weights"], self.ask("make", name=name, spec=spec, **paths)

    def timed(self, name, count):
        """Seconds a step, mean over `count` steps."""
        return self.ask("time", name=name, steps=count)["seconds"]
