"""Faults of a shared machine and of its environment: caches of others, compilers, variables, worker processes, limits."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
import warnings

import harness
import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
import test_stream
from jax.experimental.compilation_cache import compilation_cache

import ncl_jax
from ncl_jax import cli
from ncl_jax.data.feeds import stream
from ncl_jax.models.cpu import library
from ncl_jax.report import charts, plots
from ncl_jax.runs import messages
from ncl_jax.runtime import caches, causes, compiled, settings
from ncl_jax.storage import checkpoint

split, expected = test_stream.split, test_stream.expected  # fixtures
PICTURES = True
OTHER = 12345  # a user's number


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where the cache folder will be; notes are printed anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caches._note.cache_clear()
    yield tmp_path / "cache" / "ncl_jax"
    caches._note.cache_clear()


def no_home():
    raise RuntimeError("Could not determine home directory.")


UNUSABLE = {
    "a file in its place": lambda cache, patch: cache.write_text(""),
    "a file above it": lambda cache, patch: (cache.parent.rmdir(), cache.parent.write_text("")),
    "a link to nothing": lambda cache, patch: cache.symlink_to("nowhere"),
    "others can write above it": lambda cache, patch: cache.parent.chmod(0o777),
    "another group can write above it": lambda cache, patch: (os.chown(cache.parent, -1, OTHER), cache.parent.chmod(0o775)),
    "it belongs to another user": lambda cache, patch: (cache.mkdir(), os.chown(cache, OTHER, -1)),
    "above it belongs to another user": lambda cache, patch: os.chown(cache.parent, OTHER, -1),
    "it cannot be written": lambda cache, patch: patch.setattr(caches.os, "access", lambda *_: False),
    "no home": lambda cache, patch: (patch.delenv("XDG_CACHE_HOME"), patch.setattr(caches.pathlib.Path, "home", no_home)),
    "a relative home": lambda cache, patch: (patch.delenv("XDG_CACHE_HOME"), patch.setenv("HOME", "x")),
    "a relative name and no home": lambda cache, patch: (
        patch.setenv("XDG_CACHE_HOME", "x"), patch.setattr(caches.pathlib.Path, "home", no_home)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_cache_that_is_not_the_users_alone_is_not_used(name, cache, monkeypatch, capsys):
    if os.geteuid() != 0 and ("belongs" in name or "group" in name):
        pytest.skip("files are given to another user")
    cache.parent.mkdir()
    UNUSABLE[name](cache, monkeypatch)
    assert caches.folder() is None is caches.folder()
    assert len(capsys.readouterr().err.splitlines()) == 1
    with caches.private() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and cache.parent not in folder.parents


def test_a_cache_is_made_for_the_user_alone(cache, monkeypatch):
    before = os.umask(0)
    try:
        found = caches.folder()
    finally:
        os.umask(before)
    assert found == cache and stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(cache.parent.stat().st_mode) == 0o700


PLANTED = {
    "a file that others could write": (0o777, lambda path: (path.write_text(""), path.chmod(0o666))),
    "a file of another user": (0o700, lambda path: (path.write_text(""), os.chown(path, OTHER, -1))),
    "a folder of another user": (0o700, lambda path: (path.mkdir(), os.chown(path, OTHER, -1))),
    "a link": (0o700, lambda path: path.symlink_to("/etc/hostname")),
    "a pipe": (0o700, lambda path: os.mkfifo(path)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_others_put_into_a_cache_is_removed(name, cache):
    if os.geteuid() != 0 and "another user" in name:
        pytest.skip("files are given to another user")
    mode, plant = PLANTED[name]
    cache.mkdir(parents=True)
    cache.chmod(mode)
    (cache / "own").write_text("")
    plant(cache / "kernels-0-0.so")
    assert caches.folder() == cache and [path.name for path in cache.iterdir()] == ["own"]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One kernel, which compiles at once; returns what was loaded from where."""
    (tmp_path / "small.cc").write_text('extern "C" int kernel() { return 7; }')
    monkeypatch.setattr(library, "SOURCES", [tmp_path / "small.cc"])
    monkeypatch.setattr(library, "TARGETS", ("kernel",))
    monkeypatch.setattr(library, "_register", lambda found: loaded.append(found.kernel()))
    loaded: list = []
    return loaded


def test_kernels_of_others_are_compiled_again_and_without_a_cache_compiled_elsewhere(cache, small, monkeypatch):
    reason = library.load.__wrapped__()
    if "no C++ compiler" in reason:
        pytest.skip(reason)
    assert reason == ""
    (kept,) = cache.glob("*.so")
    kept.chmod(0o666)
    cache.chmod(0o777)
    before = kept.stat().st_ino
    assert library.load.__wrapped__() == ""
    assert [path.stat().st_ino for path in cache.glob("*.so")] != [before]
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert library.load.__wrapped__() == "" and small == [7, 7, 7]


COMPILERS = {
    "says a megabyte": ("head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; exit 1", "xxxx"),
    "says no text": ("printf 'bad \\377 byte' >&2; exit 1", "bad . byte"),
    "says nothing": ("exit 3", "exit code 3"),
    "makes nothing": ("exit 0", "exit code 0"),
    "hangs": ("sleep 100", "more than 0.2 s"),
    "makes a file that is no library": ('while [ "$1" != -o ]; do shift; done; echo x > "$2"', "cannot be loaded"),
    "makes a library without the kernels": (
        'while [ "$1" != -o ]; do shift; done; cp {library} "$2"', "lacks the kernels"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILERS)
def test_a_compiler_that_fails_leaves_the_work_to_xla_and_says_so_in_a_line(name, cache, small, tmp_path, monkeypatch):
    script, said = COMPILERS[name]
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\n" + script.replace("{library}", np._core._multiarray_umath.__file__))
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(library, "MOST_SECONDS", 0.2 if name == "hangs" else 60)
    reason = library.load.__wrapped__()
    assert re.search(said, reason) and "\n" not in reason and len(reason) < 800 and not small
    assert not list(cache.glob("*.so"))


@pytest.mark.parametrize(("cxx", "available"), [
    ("c++ -DSOMETHING", True), (__file__, False), ("'c++", False), ("  ", False), ("no-such-compiler -x", False),
])  # fmt: skip
def test_the_compiler_is_a_program_with_arguments(cxx, available):
    if available:
        assert library._split(cxx) == ["c++", "-DSOMETHING"]
    else:
        with pytest.raises(library.Unbuilt, match="no C"):
            library._split(cxx)


@pytest.fixture
def compile_cache(tmp_path, monkeypatch):
    """JAX's cache of compiled programs in a folder of its own, and warnings as they are for users."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    jax.config.update(names[0], str(tmp_path / "compiled"))
    jax.config.update(names[1], 0.0)
    compiled._say.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tmp_path / "compiled"
    compiled._say.cache_clear()
    compilation_cache.reset_cache()
    for name, value in before.items():
        jax.config.update(name, value)


def compile_small():
    def small(x):
        return x + 1

    return jax.jit(small).lower(jnp.float32(1)).compile()


SPOILT = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-30] + bytes(30)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_damaged_compiled_program_is_replaced_with_a_line(name, compile_cache, capsys):
    compiled.heal()
    compiled.heal()
    compile_small()
    (entry,) = compile_cache.glob("jit_small-*-cache")
    good = entry.stat().st_size
    SPOILT[name](entry)
    compile_small()
    compile_small()
    assert entry.is_file() and abs(entry.stat().st_size - good) < 100
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and str(compile_cache) in printed.err and not printed.out


def test_a_place_for_compiled_programs_that_cannot_be_used_costs_a_line(compile_cache, capsys):
    compile_cache.write_text("")
    compiled.heal()
    compile_small()
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be kept" in line and str(compile_cache) in line


def test_other_warnings_are_shown_as_ever(compile_cache, capsys):
    shown = []
    warnings.showwarning = lambda message, *rest, **named: shown.append(str(message))
    warnings.simplefilter("always")
    compiled.heal()
    warnings.warn("something else", stacklevel=1)
    assert shown == ["something else"] and capsys.readouterr() == ("", "")


ELSEWHERE = {
    "jax_enable_x64": True, "jax_default_prng_impl": "rbg", "jax_threefry_partitionable": False,
    "jax_default_matmul_precision": "bfloat16", "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise", "jax_disable_jit": True, "jax_debug_nans": True,
    "jax_debug_key_reuse": True, "jax_check_tracer_leaks": True, "jax_transfer_guard": "disallow",
}  # fmt: skip


@pytest.fixture
def elsewhere():
    """JAX as a user has set it for another program."""
    before = {name: getattr(jax.config, name) for name in ELSEWHERE}
    for name, value in ELSEWHERE.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def fingerprints(run):
    files = sorted(run.glob("checkpoints/*/fingerprint/metadata"))
    return {path.parent.parent.name: json.loads(path.read_text()) for path in files}


def test_a_run_is_the_same_whatever_jax_was_set_to_for_another_program(finished, elsewhere, tmp_path):
    _, code = cli.attempt("train", [*harness.TRAIN[1:], f"--workdir={tmp_path / 'run'}"])
    assert code == 0 and len(fingerprints(finished)) == 2
    assert fingerprints(tmp_path / "run") == fingerprints(finished)
    model = ncl_jax.load(finished)
    images = np.full((2, 28, 28, 3), 100, np.uint8)
    scores = model(images)
    assert scores.dtype == np.float32 and model.features(images).dtype == np.float32
    assert {name: getattr(jax.config, name) for name in ELSEWHERE} == ELSEWHERE
    with settings.held():
        np.testing.assert_array_equal(scores, ncl_jax.load(finished)(images))


def test_a_fingerprint_does_not_depend_on_the_settings(elsewhere):
    with settings.held():
        state = {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.int32(5)}
        before = checkpoint.fingerprint(state)
    assert checkpoint.fingerprint(state) == before


@pytest.mark.parametrize(("name", "value", "listed"), [
    ("JAX_ENABLE_X64", "1", True), ("JAX_ENABLE_X64", "nonsense", True), ("JAX_ENABLE_X64", "False", False),
    ("JAX_ENABLE_X64", "", False), ("JAX_DEFAULT_PRNG_IMPL", "rbg", True), ("JAX_RANDOM_SEED_OFFSET", "3", True),
    ("JAX_DEFAULT_PRNG_IMPL", "threefry2x32", False), ("JAX_THREEFRY_PARTITIONABLE", "on", False),
    ("JAX_THREEFRY_PARTITIONABLE", "0", True), ("JAX_TRANSFER_GUARD", "disallow", True), ("JAX_DISABLE_JIT", "t", True),
])  # fmt: skip
def test_a_command_drops_variables_that_change_what_is_computed(name, value, listed, monkeypatch):
    monkeypatch.setenv(name, value)
    assert settings.forget() == ([f"{name}={value}"] if listed else [])
    assert name not in os.environ


def test_a_command_draws_without_a_screen(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    settings.forget()
    assert os.environ["MPLBACKEND"] == "agg"


def test_plots_are_the_same_whatever_matplotlib_was_set_to():
    draw = lambda: plots.png(charts.class_sizes("cards", [5, 3, 2]))  # noqa: E731
    before = draw()
    with plots.matplotlib.rc_context({
        "text.usetex": True, "figure.dpi": 30, "font.size": 40, "axes.facecolor": "red", "savefig.bbox": "tight",
        "axes.formatter.use_locale": True, "figure.constrained_layout.use": True, "path.sketch": (9, 9, 9),
    }):  # fmt: skip
        assert draw() == before


def test_jax_that_cannot_start_names_the_variables(monkeypatch):
    def refuse(_):
        raise ValueError("invalid truth value 'banana'")

    monkeypatch.setattr(cli.importlib, "import_module", refuse)
    monkeypatch.setenv("JAX_LOG_COMPILES", "banana")
    message, code = cli.attempt("report", [])
    assert code == 1 and "JAX_LOG_COMPILES=banana" in message and "\n" not in message


FLAGS = (
    "--nonsense",
    "--xla_force_host_platform_device_count=abc",
    "nonsense",
    "--xla_force_host_platform_device_count=2",
)
TRIED = """
import os, sys
from ncl_jax.errors import ConfigError
from ncl_jax.runtime import xla_flags
for flags in sys.argv[1:]:
    os.environ["XLA_FLAGS"] = flags
    try:
        print("good", xla_flags.check(flags))
    except ConfigError as error:
        print(error)
"""


def test_xla_flags_that_would_end_the_program_are_refused():
    """In a program that has not read them yet."""
    program = [sys.executable, "-c", TRIED, *FLAGS]
    result = subprocess.run(program, cwd=programs.ROOT, capture_output=True, text=True, timeout=60, check=True)
    unknown, value, file, good = result.stdout.splitlines()
    assert FLAGS[0] in unknown and "value abc" in value and "Could not open" in file and good == "good None"
    assert all(line.startswith("XLA_FLAGS=") for line in (unknown, value, file)) and not result.stderr


CAUSES = [
    (OSError(errno.ENOSPC, "full", "/data/x"), "/data/x.*No space left.*free disk space"),
    (OSError(errno.EMFILE, "many", b"/data/x"), "/data/x.*Too many open files.*ulimit -n"),
    (PermissionError(errno.EACCES, "no"), "Permission denied"),
    (OSError(errno.ENOENT, "gone", "a", None, "b"), "a and b.*No such file"),
    (BlockingIOError(errno.EAGAIN, "fork"), "ulimit -u"),
    (MemoryError(), "the memory is full"),
    (RuntimeError("can't start new thread"), "no thread can be started"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), "memory is full.*Out of memory"),
    (ImportError("x.so: failed to map segment from shared object"), "cannot be loaded.*ulimit -v"),
    (ImportError("x.so: cannot open shared object file: Too many open files"), "cannot be loaded.*ulimit -n"),
    (ImportError("no module"), None), (OSError("of a library"), None), (RuntimeError("something else"), None), (KeyError("x"), None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "said"), CAUSES, ids=lambda value: repr(value)[:40])
def test_what_the_machine_causes_is_one_line_and_no_error_of_the_program(error, said, monkeypatch):
    def command(_):
        try:
            raise error
        except Exception as first:
            raise ValueError("a library's own words") from first

    monkeypatch.setattr("ncl_jax.cli.report.main", command)
    if said is None:
        with pytest.raises(ValueError, match="own words"):
            cli.attempt("report", ["x"])
        return
    message, code = cli.attempt("report", ["x"])
    assert code == 1 and message.startswith("error: ") and "\n" not in message
    assert re.search(said, message) and causes.of(error) in message


def test_a_working_directory_that_was_deleted_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    message, code = cli.attempt("report", ["x"])
    assert code == 1 and "the working directory has been deleted" in message


@pytest.mark.parametrize("here", [True, False])
def test_programs_import_from_the_working_directory_only_if_their_parent_does(here, tmp_path, monkeypatch):
    """Workers are started by -c, the runs of a comparison by -m."""
    (tmp_path / "there.py").write_text("print('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setattr(sys, "path", [*[""] * here, *(p for p in sys.path if p not in ("", str(tmp_path)))])
    settings.keep_search_path()
    for way in (["-m", "there"], ["-c", "import there"]):
        done = subprocess.run([sys.executable, *way], capture_output=True, text=True)
        assert (done.stdout == "run\n") is here, done


def refuse(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


class Killed:
    """Batches whose worker is killed at the third one."""

    def __init__(self, source):
        self._iterator = iter(source)
        self._left = 2

    def __iter__(self):
        return self

    def __next__(self):
        if not self._left:
            raise RuntimeError("Worker process was terminated unexpectedly with exit code -9.")
        self._left -= 1
        return next(self._iterator)

    def close(self):
        self._iterator.close()


@pytest.mark.parametrize("name", ["they cannot start", "one is killed"])
def test_worker_processes_that_fail_give_way_to_threads(name, split, expected, monkeypatch, capsys):
    if name == "one is killed":
        monkeypatch.setattr(stream.grain.IterDataset, "mp_prefetch", lambda source, _: Killed(source))
    else:
        monkeypatch.setattr(stream.grain.IterDataset, "mp_prefetch", refuse)
    source = test_stream.feed(split, workers=2)
    test_stream.assert_same(test_stream.take(source, 0, 6), expected[:6])
    (line,) = capsys.readouterr().out.splitlines()
    assert "data.workers=2" in line and ("exit code -9" in line or "Read-only" in line)


@pytest.mark.parametrize(("before", "said"), [
    ({}, None), ({"convolution": "xla", "device": "1 x CPU (X), 2 cores"}, None),
    ({"convolution": "native"}, "run.conv=native and continues with run.conv=xla"),
    ({"convolution": "xla", "device": "1 x CPU (X), 1 cores"}, "1 cores and continues with 1 x CPU .X., 2 cores"),
    ({"convolution": "native", "device": "2 x CPU (X), 2 cores"}, "run.conv=native .* 2 x CPU"),
])  # fmt: skip
def test_a_run_that_continues_elsewhere_says_so_in_a_line(before, said):
    lines = messages.other_machine(before, {"convolution": "xla", "device": "1 x CPU (X), 2 cores"})
    assert len(lines) == (said is not None) and (said is None or re.search(said, lines[0]))


def test_a_run_notes_where_it_was_computed_and_how(finished):
    results = json.loads((finished / "results.json").read_text())
    newest = max(finished.glob("checkpoints/*/progress/metadata"), key=lambda path: int(path.parent.parent.name))
    progress = json.loads(newest.read_text())
    assert results["operations"] == progress["convolution"] in ("native", "xla")
    assert results["device"] == progress["device"]
