"""A frozen backbone on the devices: its program, and how many images go through it at once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncl_jax.config import costs
from ncl_jax.config.plan import Plan, normalize
from ncl_jax.data.images import parallel
from ncl_jax.models import cpu
from ncl_jax.runtime import limits

BATCH = 16  # images at once on a CPU
LARGE_BATCH = 256  # on each accelerator: more are not faster, docs/accelerators.md
SHARE = 0.9  # of a device's memory that the program of a batch may take


class Computing:
    """The function uint8 [B, size, size, 3] to features float32 [B, D], on this process's devices; nothing is compiled
    or put there before it is needed."""

    def __init__(self, plan: Plan, variables: Any):
        devices = jax.local_devices()[: 1 if jax.default_backend() == "cpu" else None]
        mesh = Mesh(np.array(devices), ("data",))
        self._plan, self._variables, self._devices, self._programs = plan, variables, devices, dict[int, Callable]()
        self._spread, self._everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        self._ready, apply = (lambda variables: variables), program(plan)
        if plan.trunk is not None and by_kernels(plan.trunk):
            self._ready, of_ready = cpu.inference(plan.trunk)
            apply = lambda variables, images: of_ready(variables, normalize(plan, images))  # noqa: E731
        self._jitted = jax.jit(apply, out_shardings=self._spread)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of images."""
        run = self._programs.get(len(images), self._jitted)
        return np.asarray(run(self._held, jax.device_put(images, self._spread)))

    @functools.cached_property
    def _held(self):
        return jax.device_put(self._ready(self._variables), self._everywhere)

    @functools.cached_property
    def batch_size(self) -> int:
        """Images in one call: on an accelerator as many as fit, at most `LARGE_BATCH` on each."""
        if jax.default_backend() == "cpu":
            return max(BATCH, parallel.cores())
        number, most = len(self._devices), limits.device_memory(self._devices[0])
        compiled, images = largest(lambda images: self._compiled(images * number), most)
        self._programs[images * number] = compiled
        return images * number

    def _compiled(self, images):
        size = self._plan.preprocessing.size
        pixels = jax.ShapeDtypeStruct((images, size, size, 3), np.uint8, sharding=self._spread)
        return self._jitted.lower(self._held, pixels).compile()


def largest(compiled: Callable[[int], Any], most: int | None) -> tuple[Any, int]:
    """A program, and its batch on each device: `LARGE_BATCH`, halved until the program fits.

    Args:
      compiled: makes the program of so many images on each device.
      most: bytes of a device's memory; None: not known.
    """
    images = LARGE_BATCH
    while True:
        found = compiled(images)
        if images == 1 or most is None or costs.program_bytes(found) <= SHARE * most:
            return found, images
        images //= 2


def program(plan: Plan) -> Callable[[Any, jax.Array], Any]:
    """The backbone's variables and images uint8 `[B, size, size, 3]` to features float32 `[B, D]`, for use under
    `jit` on any platform."""
    trunk = plan.trunk
    assert trunk is not None
    return lambda variables, images: trunk.apply(variables, normalize(plan, images), False)


def by_kernels(trunk: Any) -> bool:
    """Whether a backbone is computed by our own kernels, on one CPU device."""
    return getattr(trunk, "operations", None) is cpu.OPERATIONS
