"""What a program sets before its first computation."""

import ctypes
import subprocess
import sys

import jax
import pytest
import tiny

from ncl_jax.models import layers
from ncl_jax.runtime import startup


def test_the_cache_is_the_users_unless_jax_was_told(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        jax.config.update("jax_compilation_cache_dir", None)
        startup.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "ncl_jax")
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        startup.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_program_that_runs_once_gives_the_same_numbers():
    def draw():
        return layers.kaiming_normal(jax.random.key(0), (3, 3, 4, 8))

    assert tiny.same(startup.run_once(draw), jax.jit(draw)())


ARENAS = """
import ctypes, sys, threading
from ncl_jax.runtime import memory
memory.keep()
blocks = []
threads = [threading.Thread(target=lambda: blocks.append(ctypes.create_string_buffer(10**6))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
libc.malloc_info.argtypes, libc.fclose.argtypes = (ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
file = libc.fopen(sys.argv[1].encode(), b"w")
assert len(blocks) == 8 and libc.malloc_info(0, file) == 0 and libc.fclose(file) == 0
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="memory is kept by glibc only")
def test_all_threads_take_their_memory_from_the_one_arena_that_keeps_it(tmp_path):
    subprocess.run([sys.executable, "-c", ARENAS, str(tmp_path / "info.xml")], check=True, timeout=60)
    assert (tmp_path / "info.xml").read_text().count("<heap nr") == 1


GAP = """
import ctypes
from ncl_jax.runtime import memory
memory.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
held = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 // 10**6
large, behind = libc.malloc(10**8), libc.malloc(10**6)
ctypes.memset(large, 1, 10**8)
libc.free(large)
before = held()
memory.trim()
print(before - held())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="memory is kept by glibc only")
def test_a_gap_between_blocks_that_stay_is_given_back_when_asked_for():
    run = subprocess.run([sys.executable, "-c", GAP], check=True, timeout=60, capture_output=True, text=True)
    assert int(run.stdout) >= 95  # of 100 million bytes, which were kept until then


@pytest.mark.slow
def test_memory_is_kept_before_a_library_can_start_a_thread():
    program = (
        "import sys; from ncl_jax import cli; from ncl_jax.runtime import memory\n"
        "memory.keep = lambda: print(sorted({'numpy', 'jax'} & sys.modules.keys()))\n"
        "cli.run('train', ['--version'])"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert run.stdout.startswith("[]\n")
