"""What a program sets before its first computation."""

import jax
import pytest

from ncl_jax import startup


@pytest.fixture(autouse=True)
def asked_once():
    """The options are found out once a process; the tests ask anew."""
    startup.compiler_options.cache_clear()
    yield
    startup.compiler_options.cache_clear()


def test_the_compiler_takes_the_options():
    options = startup.compiler_options()
    assert options is not None
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2


def test_a_compiler_that_does_not_know_the_options_does_without(monkeypatch):
    jit = jax.jit
    unknown = lambda function, compiler_options: jit(function, compiler_options={"xla_no_such_option": "1"})  # noqa: E731
    monkeypatch.setattr(jax, "jit", unknown)
    assert startup.compiler_options() is None


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
