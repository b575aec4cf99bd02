"""Evaluation of a state, and of a finished or running run's checkpoint.

python -m ncl_jax.evaluate --workdir=runs/quickstart [--step=N]
"""

import argparse
import contextlib
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from ncl_jax import build, metrics, report, startup, steps
from ncl_jax.checkpoint import CheckpointError, Checkpoints, Restored
from ncl_jax.config import ConfigError, base_config, flatten
from ncl_jax.data import augment, pipeline
from ncl_jax.data.sources import DataError
from ncl_jax.sharding import make_mesh, put_rows, replicated


def make_evaluate(config: ml_collections.ConfigDict, split: pipeline.Split, mesh: Mesh) -> Callable:
    """Makes `evaluate(params, batch_stats) -> Sums` over the test set, which it keeps spread over the devices.

    Nothing waits for the result: the sums are arrays on the device, ready when they are read.
    """
    size = config.run.eval_batch
    batches = -(-len(split.test_labels) // size)

    def put(array):  # [batches, size, ...], every batch spread over the devices
        array = np.pad(array, [(0, batches * size - len(array)), *[(0, 0)] * (array.ndim - 1)])
        return put_rows(mesh, array.reshape(batches, size, *array.shape[1:]), axis=1)

    test_set = tuple(map(put, (split.test_images, split.test_labels, np.ones(len(split.test_labels), bool))))
    numbers = jax.device_put([np.int32(i) for i in range(batches)], replicated(mesh))
    predict = steps.make_predict(build.network(config, split.facts.num_classes), build.strategy(config), mesh)
    normalize = functools.partial(augment.normalize, mean=config.data.mean, std=config.data.std)

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def evaluate_batch(params, batch_stats, test_set, number):
        images, labels, valid = (array[number] for array in test_set)
        return metrics.evaluate_batch(predict(params, batch_stats, normalize(images)), labels, valid)

    def evaluate(params, batch_stats):
        return functools.reduce(metrics.add, [evaluate_batch(params, batch_stats, test_set, n) for n in numbers])

    return evaluate


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run. Raises ConfigError where `workdir` holds none."""
    path = pathlib.Path(workdir) / "config.json"
    try:
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not the configuration of a run ({error}): give the run's directory") from error
    missing = flatten(base_config()).keys() - flatten(config).keys()
    if missing:
        raise ConfigError(f"{path} is of another version: it has no {', '.join(sorted(missing))}")
    return config


def restore(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, step: int | None
) -> tuple[pipeline.Facts, Restored]:
    """What a run's data was, and its checkpoint: the latest good one if `step` is None.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    path = workdir / "dataset.json"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: {workdir} holds no run that has started")
    facts = pipeline.Facts.from_json(path.read_text())
    place = replicated(make_mesh(1))
    target = jax.eval_shape(lambda: build.initial_state(config, facts))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), target)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        restored = checkpoints.restore(target) if step is None else checkpoints.read(step, target)
    if restored is None:
        raise CheckpointError(f"{workdir} holds no checkpoint yet")
    return facts, restored


def evaluate_run(workdir: pathlib.Path, step: int | None = None, data_dir: str | None = None) -> dict:
    """Re-evaluates a checkpoint of a run: the figures of `metrics.summarize`, with `step` and `epoch`.

    Raises:
      ConfigError, CheckpointError, DataError: see `read_config`, `restore`, `sources.load`.
    """
    config = read_config(workdir)
    config.data.download = False
    if data_dir is not None:
        config.data.dir = data_dir
    facts, restored = restore(workdir, config, step)
    split, state = build.data(config), restored.state
    if split.facts != facts:
        raise DataError(f"the data in {config.data.dir} is not what the run was trained on ({workdir}/dataset.json)")
    sums = make_evaluate(config, split, make_mesh(1))(state.params, state.batch_stats)
    for line in restored.skipped:
        print(line)
    epoch = restored.step // len(state.history)
    return {"step": restored.step, "epoch": epoch, **metrics.summarize(sums, facts.groups())}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ncl_jax.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="directory of the run")
    parser.add_argument("--step", type=int, help="step of the checkpoint; the latest good one if not given")
    parser.add_argument("--data_dir", help="folder of the data, if it is no longer where the run found it")
    args = parser.parse_args()
    startup.prepare()
    try:
        results = evaluate_run(args.workdir, args.step, args.data_dir)
    except (ConfigError, CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{args.workdir}, step {results['step']} (epoch {results['epoch']})")
    print(report.table(results))


if __name__ == "__main__":
    main()
