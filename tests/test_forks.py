"""Programs that are started as forks: they see what a program of their own would, and end as it would."""

import os
import signal
import sys

import programs
import pytest

pytestmark = pytest.mark.slow
PROGRAM = """
import os, signal, sys
print(__name__, sys.argv[1:], os.environ["JAX_COMPILATION_CACHE_DIR"], os.getpid() == os.getpgid(0), os.getcwd())
print("an error", file=sys.stderr)
os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == "killed" else sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("how", "code"), [("0", 0), ("3", 3), ("killed", -signal.SIGKILL)])
def test_a_fork_is_a_program(how, code, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    process = programs.start([sys.executable, str(tmp_path / "program.py"), how], "a cache", new_group=how == "3")
    output = process.communicate()[0].splitlines()
    assert output == [f"__main__ ['{how}'] a cache {how == '3'} {programs.ROOT}", "an error"]
    assert process.returncode == process.poll() == code and process.pid != os.getpid()
