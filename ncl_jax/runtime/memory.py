"""What a program does before everything else: memory that was freed is kept for the next step."""

import ctypes
import sys

ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -8, -4, -1, -2  # malloc.h
NEVER = -1


def keep() -> None:
    """Makes glibc keep freed memory, on Linux; without glibc nothing happens.

    XLA's CPU backend frees its temporaries after every step; the kernel's handing them out again, page by page, takes
    up to a fifth of a step (docs/benchmarks.md). To be called before NumPy and JAX are imported: a thread that is there
    earlier may get an arena of its own, and blocks above 64 MB of such an arena always go back to the kernel.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (TOP_PAD, 2**28)):
            libc.mallopt(option, value)


def trim() -> None:
    """Gives free memory back to the system, once: to be called after the first step.

    What that step used is then a gap between blocks that stay, and too small for the next step by what has been put
    into it; kept, it would be held until the end of the run beside the memory that the next steps take, twice over.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
