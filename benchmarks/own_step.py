"""Our side of step_time.py: a compiled training step and its state."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.data.feeds.resident import Resident
from ncl_jax.methods import momentum
from ncl_jax.runtime import startup
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.training import steps
from ncl_jax.weights import torch_names

MODULES = {"backbone": "backbone", "classifier": "classifier"}


def make_feed(config, data):
    """The data on one device, in the order of the run."""
    return Resident(*data[1:], plans.keys(config.seed).order, config.optim.batch_size, make_mesh(1))


class Ours:
    """A compiled training step and its state."""

    def __init__(self, config, data, train_step, weights=None):
        facts = data[0]
        plan = build.make_training_plan(config, facts)
        self.state = startup.run_once(lambda: plans.initial_state(plan))
        if weights is not None:
            self.state = load_weights(plan, self.state, weights)
        feed, self.per_call = make_feed(config, data), config.run.steps_per_call
        self.arguments = (plans.keys(config.seed).step, next(feed.batches(0))[0])
        self.history = steps.zero_history(train_step, feed.take, self.state, *self.arguments, plan.steps_per_epoch)
        began = time.perf_counter()
        program = jax.jit(steps.make_advance(train_step, feed.take, several=self.per_call > 1), donate_argnums=(0, 1))
        self.program = program.lower(self.state, self.history, *self.arguments, jnp.int32(1)).compile()
        self.compile_seconds = time.perf_counter() - began

    def call(self, count):
        """`count` steps in one call; the last one's metrics."""
        self.state, self.history, last = self.program(self.state, self.history, *self.arguments, jnp.int32(count))
        return last

    def losses(self, count):
        """Losses of the next `count` steps, one call each."""
        for _ in range(count):
            yield float(self.call(1)["loss"])

    def timed(self, count):
        """Seconds a step, mean over at least `count` steps."""
        calls = -(-count // self.per_call)
        jax.block_until_ready(self.state)
        began = time.perf_counter()
        for _ in range(calls):
            self.call(self.per_call)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / (calls * self.per_call)


def load_weights(plan, state, path):
    """The state with PyTorch's initial weights and queue; the key encoder starts as a copy."""
    with np.load(path) as file:
        tensors = dict(file)
    contrast = "projection" in state.params
    modules = MODULES | ({"projection": "projection"} if contrast else {})
    variables = torch_names.from_torch(tensors, modules)
    torch_names.check_same_structure(variables, {"params": state.params, "batch_stats": state.batch_stats})
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    state = state._replace(params=params, batch_stats=batch_stats, opt_state=plan.optimizer.init(params))
    if not contrast:
        return state
    queue = momentum.KeyQueue(jnp.array(tensors["queue"]), jnp.int32(0))
    return state._replace(memory=state.memory | {"contrast": queue})
