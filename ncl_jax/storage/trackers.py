"""Trackers, to which a run's log can go besides its own files. One more is a class and a line in `TRACKERS`.

Each continues its own run where the run is continued: what it is called there is kept in the run's directory. The
library's own variables (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...) say where it logs.
"""

import contextlib
import importlib
import os
import uuid
from collections.abc import Callable, Iterator

from ncl_jax.config.fields import flatten
from ncl_jax.errors import ConfigError, one_line
from ncl_jax.field import one_of
from ncl_jax.runtime import extras
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import Writer, scalars

PROJECT = "ncl_jax"  # where the library's variables name no other


class Wandb(Writer):
    """Weights & Biases. Online it leaves out steps that a continued run computes again: it has them already."""

    def __init__(self, directory: RunDir):
        import wandb

        name = directory.read_tracker("wandb") or uuid.uuid4().hex
        directory.write_tracker("wandb", name)
        self._code = 1  # of a run that was stopped
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=name, resume="allow", name=directory.path.name,
            dir=str(directory.path), config=flatten(directory.read_config()), allow_val_change=True,
        )  # fmt: skip

    def write(self, kind: str, record: dict) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in scalars(record)}, step=record["step"])

    def finish(self, results: dict) -> None:
        self._run.summary.update({f"results/{name}": value for name, value in scalars(results)})
        self._code = 0

    def close(self) -> None:
        self._run.finish(exit_code=self._code)


class Mlflow(Writer):
    """MLflow. What an interrupted run logged after its last checkpoint is there twice, with the same values."""

    def __init__(self, directory: RunDir):
        import mlflow

        self._mlflow, self._client, self._status = mlflow, mlflow.MlflowClient(), "KILLED"
        if name := directory.read_tracker("mlflow"):
            self._run = name
            self._client.update_run(name, status="RUNNING")
            return
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)).experiment_id
        self._run = self._client.create_run(experiment, run_name=directory.path.name).info.run_id
        directory.write_tracker("mlflow", self._run)
        mlflow.log_params(flatten(directory.read_config()), run_id=self._run)

    def write(self, kind: str, record: dict) -> None:
        values = {f"{kind}/{name}": value for name, value in scalars(record)}
        self._mlflow.log_metrics(values, step=record["step"], run_id=self._run)

    def finish(self, results: dict) -> None:
        self.write("results", results)
        self._status = "FINISHED"

    def close(self) -> None:
        self._client.set_terminated(self._run, self._status)


TRACKERS: dict[str, Callable[[RunDir], Writer]] = {"wandb": Wandb, "mlflow": Mlflow}


def check(name: str) -> None:
    """Raises ConfigError where `name` is neither empty nor a tracker whose library is installed."""
    if not name:
        return
    one_of("--tracker", name, TRACKERS)
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"--tracker={name} needs its library ({one_line(error)}): {extras.install(name)}") from error


class Guarded(Writer):
    """A tracker that may fail: a line then says so, and the run continues without it.

    Args:
      name: one of `TRACKERS`.
      directory: of the run.
      say: shows a line.
    """

    def __init__(self, name: str, directory: RunDir, say: Callable[[str], object]):
        self._name, self._say, self._writer = name, say, Writer()
        with self._surviving():
            self._writer = TRACKERS[name](directory)

    def write(self, kind: str, record: dict) -> None:
        with self._surviving():
            self._writer.write(kind, record)

    def finish(self, results: dict) -> None:
        with self._surviving():
            self._writer.finish(results)

    def close(self) -> None:
        with self._surviving():
            self._writer.close()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a library and of servers that are not ours
            self._writer = Writer()
            what = f"{type(error).__name__}: {one_line(error)}"
            self._say(f"warning: --tracker={self._name} failed ({what}); the run continues without it")
