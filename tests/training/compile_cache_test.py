"""The cache of compiled programs: where it is, and what happens where it cannot be."""

from pathlib import Path

import jax
import pytest

from sparsejax.training import compile_cache
from sparsejax.training.compile_cache import use_compile_cache, users_folder


@pytest.fixture
def used(monkeypatch):
    """Directories that JAX is told, and lines that are shown."""
    told: tuple[list, list] = ([], [])
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(jax.config, "update", lambda name, value: told[0].append((name, value)))
    return told


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert users_folder({}).parent == tmp_path / ".cache" / "sparsejax" / "compiled"
    assert users_folder({"XDG_CACHE_HOME": "relative"}).parent == tmp_path / ".cache" / "sparsejax" / "compiled"
    assert users_folder({"XDG_CACHE_HOME": "/x"}).parent == Path("/x/sparsejax/compiled")
    assert users_folder({}).name == users_folder({}).name, "one processor, one folder"


def test_it_is_on_unless_told_otherwise(used, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compile_cache("auto", used[1].append)
    (folder,) = (tmp_path / "sparsejax" / "compiled").iterdir()
    use_compile_cache(str(tmp_path / "own"), used[1].append)
    use_compile_cache("gs://bucket/cache", used[1].append)
    use_compile_cache("", used[1].append)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    use_compile_cache("auto", used[1].append)
    names = [value for name, value in used[0] if name == "jax_compilation_cache_dir"]
    assert names == [str(folder), str(tmp_path / "own"), "gs://bucket/cache"] and used[1] == []


def test_a_folder_that_cannot_be_is_one_line(used, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compile_cache("auto", used[1].append)
    use_compile_cache("/proc/nowhere", used[1].append)
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compile_cache.Path, "home", no_home)
    use_compile_cache("auto", used[1].append)
    assert used[0] == [] and len(used[1]) == 3
    for line in used[1]:
        assert line.startswith("train.compile_cache=") and "compiled anew" in line and "\n" not in line
