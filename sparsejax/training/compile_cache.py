"""Where compiled programs are kept from one start to the next.

A program from the cache is the one that was compiled, so it gives the same bits. Programs for CPUs are made for the
instructions of one processor: a home directory that several machines share has a folder for each kind.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

# ``train.compile_cache``: the cache folder of the user.
USERS = "auto"
_ENVIRONMENT = "JAX_COMPILATION_CACHE_DIR"


def use_compile_cache(setting: str, notice: Callable[[str], None]) -> None:
    """Let JAX keep its programs where ``train.compile_cache`` says; call it before anything is compiled.

    ``auto`` is the user's cache folder, unless ``JAX_COMPILATION_CACHE_DIR`` names another; the empty string sets none.
    A folder that cannot be written costs the time to compile, and one line.

    Args:
      setting: ``auto``, a directory or URI, or the empty string.
      notice: told why there is no cache.
    """
    if not setting or (setting == USERS and os.environ.get(_ENVIRONMENT)):
        return
    if "://" in setting:
        jax.config.update("jax_compilation_cache_dir", setting)
        return
    try:
        folder = users_folder(os.environ) if setting == USERS else Path(setting).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        notice(f"train.compile_cache={setting}: programs are compiled anew, the folder cannot be used ({reason})")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def users_folder(environment: Mapping[str, str]) -> Path:
    """``$XDG_CACHE_HOME/sparsejax/compiled/<processor>``, with ``~/.cache`` where that is unset or relative.

    Raises:
      RuntimeError: the user has no home directory.
    """
    named = Path(environment["XDG_CACHE_HOME"]) if environment.get("XDG_CACHE_HOME") else None
    root = named if named is not None and named.is_absolute() else Path.home() / ".cache"
    return root / "sparsejax" / "compiled" / _processor()


def _processor() -> str:
    """A name for the instructions of this machine's processor."""
    described = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # only Linux has it
        lines = []
    found = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    described += "\n".join(sorted(set(found)))
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
