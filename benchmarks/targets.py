"""Devices that need not be here: what they can do, as their makers publish it, and a mesh of them to compile for."""

import os
from typing import Any, NamedTuple

import numpy as np

TPU_VARIABLES = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true", "JAX_PLATFORMS": "cpu"}
# Nothing is timed where there is no GPU, so no kernel can be chosen by timing.
GPU_VARIABLES = {"XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false", "JAX_PLATFORMS": "cpu"}
# What XLA asks a GPU for, as text of its GpuTargetConfigProto.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Device(NamedTuple):
    """One device's published figures."""

    flops: float  # bfloat16 products and sums a second, dense
    bandwidth: float  # bytes a second between the device and its memory
    memory: float  # bytes
    clock: float  # cycles a second


DEVICES = {
    "v4": Device(275e12, 1228e9, 32 * 2**30, 1.05e9),
    "v5e": Device(197e12, 819e9, 16 * 2**30, 1.5e9),
    "v5p": Device(459e12, 2765e9, 95 * 2**30, 1.75e9),
    "h100": Device(989e12, 3352e9, 80e9, 1.98e9),
}


class Target(NamedTuple):
    """Devices of a kind: `v5e:2x4`, `v4:2x2x1`, `h100`, `h100x8`; or `here`, those that JAX finds."""

    kind: str
    topology: str
    count: int

    @property
    def name(self) -> str:
        """As it was given."""
        if self.kind == "here":
            return "here"
        return f"{self.kind}:{self.topology}" if self.kind != "h100" else f"h100x{self.count}"

    @property
    def is_tpu(self) -> bool:
        """Whether it is a TPU of `DEVICES`."""
        return self.kind not in ("here", "h100")


def parse(text: str) -> Target:
    """Raises ValueError for what is no target."""
    kind, _, topology = text.partition(":")
    if kind == "here" and not topology:
        return Target("here", "", 0)
    if kind.startswith("h100") and not topology:
        return Target("h100", "", int(kind.removeprefix("h100").removeprefix("x") or 1))
    if kind in DEVICES and topology:
        return Target(kind, topology, int(np.prod([int(side) for side in topology.split("x")])))
    raise ValueError(f"target {text!r} must be here, h100, h100xN, or one of v4:, v5e:, v5p: with sides, as v5e:2x4")


def set_variables(target: Target) -> None:
    """What the compilers read from the environment: before jax is imported."""
    if target.kind != "here":
        os.environ.update(TPU_VARIABLES if target.is_tpu else GPU_VARIABLES)


def devices(target: Target) -> list[Any]:
    """Devices to compile for. They need `jax[tpu]`, or the CUDA 12 plug-in of jax and nvidia-cuda-nvcc-cu12."""
    import jax
    from jax.experimental import topologies

    if target.kind == "here":
        return jax.devices()
    if target.is_tpu:
        # One host holds them all: a program does not depend on how many hosts its devices have.
        sides = [int(side) for side in target.topology.split("x")]
        bounds = [*sides, *[1] * (3 - len(sides))]
        name = f"{target.kind}:{target.topology}"
        return topologies.get_topology_desc(platform="tpu", topology_name=name, chips_per_host_bounds=bounds).devices
    _allow_absent_cuda()
    topology = f"1x1x{target.count}"
    return topologies.get_topology_desc("gpu", "cuda", target_config=H100, topology=topology).devices


def _allow_absent_cuda() -> None:
    """Without a GPU, jax 0.10 knows no platform "cuda" when it lowers for one (jax issue 23971)."""
    from jax._src import xla_bridge

    known = xla_bridge.canonicalize_platform

    def canonicalize(platform):
        try:
            return known(platform)
        except RuntimeError:
            return "cuda"

    xla_bridge.canonicalize_platform = canonicalize
