"""Where compiled code is kept, so that a second start need not compile again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def cache_directory() -> Path:
    """Flowvane's own: systemd's CacheDirectory, else the user's (XDG base directories)."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "flowvane"


def keep_compiled() -> None:
    """Let JAX keep the scorer's machine code; where that cannot be written it compiles anew.

    Numba keeps its own beside the sources, or where NUMBA_CACHE_DIR says.
    """
    import jax

    directory = cache_directory() / "jax"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(directory, os.W_OK):
        return
    config: Any = jax.config
    config.update("jax_compilation_cache_dir", str(directory))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
