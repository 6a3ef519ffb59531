"""The default corpus."""

import hashlib
import sysconfig
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.stdlib_source import StdlibSource


def test_it_is_the_library_without_tests_and_packages() -> None:
    documents = list(StdlibSource().documents())
    names = [document.identity.decode() for document in documents]
    assert {"os.py", "json/decoder.py", "asyncio/tasks.py"} <= set(names)
    folders = {folder for name in names for folder in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    assert 8e6 < sum(len(document.text.encode()) for document in documents) < 16e6
    assert len(set(names)) == len(names)


def test_order_and_digest_are_the_same_every_time() -> None:
    source = StdlibSource()
    assert list(source.documents()) == list(source.documents())
    assert source.content_digest() == StdlibSource().content_digest()


def test_a_small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("os.py", "b/x.py", "a/test/x.py", "b/tests/y.py", "site-packages/z.py", "a/c.py", "a/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    (tmp_path / "nothing.py").write_text("")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    source = StdlibSource()
    assert [document.identity for document in source.documents()] == [b"os.py", b"a/c.py", b"b/x.py"]
    before = source.content_digest()
    assert len(before) == hashlib.sha256().digest_size * 2
    (tmp_path / "os.py").write_text("# another")
    assert source.content_digest() != before
    (tmp_path / "os.py").unlink()
    with pytest.raises(ConfigError, match=r"data.source=stdlib: this Python keeps no \.py sources"):
        StdlibSource()
