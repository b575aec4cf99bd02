"""Shared settings: eight CPU devices in the tests' process, the reference figures, caches for these tests alone.

Compiling is most of the tests' time. So the compiler leaves its expensive passes out, and what is compiled once, in
whichever process, serves all. Both caches lie in a folder that is deleted in the end: no test touches the home folder.
"""

import atexit
import gc
import os
import pathlib
import shutil
import signal
import tempfile
import zipfile

from ncl_jax.errors import ConfigError
from ncl_jax.runtime import xla_flags

# XLA's older emitters compile in 0.6 of the time. At level 0 what is compiled is several times as slow.
QUICK = "--xla_backend_optimization_level=1"
OLDER = "--xla_cpu_use_fusion_emitters=false"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit all of it
    CACHE = tempfile.mkdtemp(prefix="ncl_jax_tests_")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ |= {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {QUICK} {OLDER}",
        "XDG_CACHE_HOME": CACHE,
        "JAX_COMPILATION_CACHE_DIR": f"{CACHE}/compiled",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    try:
        xla_flags.check(os.environ["XLA_FLAGS"])
    except ConfigError:  # another version's XLA may have them no more
        os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace(OLDER, "")

import blank  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from ncl_jax.models import cpu  # noqa: E402

# Where the tests run in the background they are ignored, and would be so in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

gc.set_threshold(20_000, 20, 20)  # tracing makes many objects that live on

ORIGINALS = blank.leave_blank()  # in fixtures of the whole session, too

GOLDEN = pathlib.Path(__file__).parent / "golden"


FIRST = ("test_cpu.py", "test_losses.py")


def pytest_collection_finish():
    """What imports and collection left stays: Python's collector of cycles need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """The slow ones first: a file stays in one worker, and the last one should be short. Before them, for one worker
    that compiles the C++ kernels, and for another one that does without until they are there, `FIRST`."""
    items.sort(key=lambda item: (item.path.name not in FIRST, item.get_closest_marker("slow") is None))


@pytest.fixture(scope="module", autouse=True)
def pictures(request):
    """Pictures are left blank but in modules that say `PICTURES = True`."""
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request.module, "PICTURES", False):
            for original in ORIGINALS:
                patch.setattr(*original)
        yield


@pytest.fixture
def golden():
    """Loads a reference file of the authors' program by name."""
    import numpy as np

    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture
def old_run(tmp_path):
    """A finished run of an older version: quickstart's method=ncl, tiny, two experts with projection heads."""
    with zipfile.ZipFile(pathlib.Path(__file__).parent / "data" / "run_v0.zip") as file:
        file.extractall(tmp_path)
    return tmp_path / "run_v0"


@pytest.fixture(scope="session")
def kernels():
    """The C++ kernels, compiled once; skips where there is no compiler."""
    reason = cpu.load()
    if "no C++ compiler" in reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cache():
    """The compilation cache of the session, for the programs that the tests start."""
    return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
