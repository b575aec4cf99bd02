"""What is kept of a run's checkpoints, also when the run is continued by another process."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax.errors import CheckpointError
from ncl_jax.storage.checkpoint import Checkpoints, fingerprint


class State(NamedTuple):
    step: jax.Array
    weights: jax.Array


def state(step):
    return State(jnp.asarray(step, jnp.int32), jnp.full((3, 2), float(step)))


def save(directory, accuracies):
    checkpoints = Checkpoints(directory)
    progress = checkpoints.peek() or {"seconds": 1.0}
    for step, accuracy in accuracies.items():
        checkpoints.save(state(step), progress, accuracy)
    checkpoints.close()


def test_the_latest_two_and_the_best_are_kept_across_processes(tmp_path):
    save(tmp_path, {1: 0.3, 2: 0.9, 3: 0.1})
    save(tmp_path, {4: 0.2, 5: None, 6: 0.1})
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 5, 6]


def target():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(0))


def test_what_is_restored_is_what_was_saved(tmp_path):
    save(tmp_path, {1: 0.3, 2: 0.9})
    restored = Checkpoints(tmp_path).restore(target())
    assert (
        restored.step == 2
        and restored.progress["seconds"] == 1.0
        and restored.progress["best"]["step"] == 2
        and restored.skipped == []
    )
    np.testing.assert_array_equal(restored.state.weights, state(2).weights)


def test_no_checkpoint_is_none_and_another_step_an_error(tmp_path):
    assert Checkpoints(tmp_path).restore(target()) is None
    save(tmp_path, {1: 0.3})
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has \[1\]"):
        Checkpoints(tmp_path).restore(target(), 7)


def test_damaged_steps_are_set_aside_under_free_names(tmp_path):
    for _ in range(2):
        save(tmp_path, {1: 0.3, 2: 0.2})
        checkpoints = Checkpoints(tmp_path)
        checkpoints.set_aside(after=1)
        assert checkpoints.steps() == [1]
        checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "damaged-checkpoints").iterdir()) == ["2-0", "2-1"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_the_fingerprint_sees_every_bit_and_no_sharding(dtype):
    values = jnp.arange(16).astype(dtype)
    one = fingerprint({"a": values, "b": jnp.zeros(())})
    mesh = jax.make_mesh((8,), ("data",))
    spread = jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    np.testing.assert_array_equal(one, fingerprint({"a": spread, "b": jnp.zeros(())}))
    changed = fingerprint({"a": values.at[5].set(0), "b": jnp.zeros(())})
    assert (np.asarray(one) != np.asarray(changed)).tolist() == [True, False]
