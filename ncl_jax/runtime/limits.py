"""How much memory there is: of this process on its machine, and of a device."""

import os
import pathlib
import resource

import jax

PROC = pathlib.Path("/proc")
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def host_memory() -> int:
    """Bytes that this process can get at most, whatever others use: of RAM and swap, or what a container, a batch
    system (cgroups of either version) or `ulimit -v` leaves it."""
    sizes = {name: int(size) * 1024 for name, size in _meminfo()}
    swap = sizes.get("SwapTotal", 0)
    ram = sizes.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min([ram + swap, *(limit + swap for limit in _cgroups()), *([address_space] if address_space > 0 else [])])


def _meminfo() -> list[tuple[str, str]]:
    lines = [line.replace(":", " ").split() for line in _text(PROC / "meminfo").splitlines()]
    return [(words[0], words[1]) for words in lines if words[:1] in (["MemTotal"], ["SwapTotal"])]


def _cgroups() -> list[int]:
    """The limits of the process's groups and of those above them, as far as they can be read."""
    found = []
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, kind, path = line.split(":", 2)
        if kind in ("", "memory"):  # of version 2, or 1
            root, name = (CGROUPS / kind, "memory.limit_in_bytes") if kind else (CGROUPS, "memory.max")
            group = root / path.lstrip("/")
            # In a container the path may be that of the host, which is not visible: its root is the container's group.
            groups = [group, *group.parents]
            found += [_text(place / name).strip() for place in groups[: groups.index(root) + 1]]
    return [int(text) for text in found if text.isdigit()]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def device_memory(device: jax.Device) -> int | None:
    """Bytes that JAX can get of a device's own memory; None where it does not say, as of CPUs."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except jax.errors.JaxRuntimeError:
        return None
