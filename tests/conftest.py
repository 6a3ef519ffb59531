"""Settings every test runs under; they must be in place before jax is imported."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks.bundles import dump_schedules

os.environ["JAX_PLATFORMS"] = "cpu"
# The shipped configs are tested as they are without books (configs/prose.py) and without a token set (configs/c4.py).
os.environ.pop("SPARSEJAX_BOOKS", None)
os.environ.pop("SPARSEJAX_C4", None)
# Eight devices on one machine, so that a test of shares or meshes needs no hardware; everything else runs on device 0.
# Tiny programs cost their compilation, not their run: without LLVM's optimiser a train step compiles four times faster.
_FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

# Compiling is most of what the tests cost, and tests that train, resume or restart a run compile the same programs.
# One cache a session, made by the process that starts it and inherited by its workers and their subprocesses.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="sparsejax-compiled-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    # Beside it what the TPU compiler writes of its schedules, which tests of the benchmark read.
    _schedules = Path(_cache, "schedules")
    _schedules.mkdir()
    dump_schedules(_schedules)
    os.environ["SPARSEJAX_TEST_SCHEDULES"] = str(_schedules)

# JAX keeps millions of objects alive, and by default Python looks through all of them for garbage again and again.
gc.set_threshold(100_000, 20, 100)

# These need a GPU, which the settings above hide: see tests/gpu/conftest.py.
collect_ignore = ["gpu"]


@pytest.fixture
def schedules_folder() -> Path:
    """Where the TPU compiler writes its schedules."""
    return Path(os.environ["SPARSEJAX_TEST_SCHEDULES"])
