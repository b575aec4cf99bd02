"""What a program sets before its first computation."""

import jax

from ncl_jax import startup


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
