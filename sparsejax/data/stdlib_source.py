"""The default corpus: the Python standard library's own sources, read in place (about 11 MB on any machine)."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.document import Document
from sparsejax.data.whole_source import WholeSource
from sparsejax.files.text import one_line

_LEFT_OUT_DIRECTORIES = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
# Written when Python was built, with that machine's paths in it.
_GENERATED_PREFIXES = ("_sysconfigdata", "config-")


class StdlibSource(WholeSource):
    """One document per ``.py`` file, in order of its path relative to the standard library.

    Test directories, installed packages, generated files and files that are not UTF-8 are left out. A document's
    identity is its relative path, so a module stays in its split when another Python version edits it.
    """

    name = "stdlib"

    def __init__(self) -> None:
        """Raises ``ConfigError`` if this Python has no standard library sources on disk."""
        self._root = Path(sysconfig.get_paths()["stdlib"])
        if not (self._root / "os.py").is_file():
            raise ConfigError(
                f"data.source=stdlib: this Python keeps no .py sources in {self._root}; "
                "set data.source=text and data.path to a text file"
            )

    def documents(self) -> Iterator[Document]:
        """One document per module."""
        for relative, content in self._modules():
            text = _decoded(content)
            if text:
                yield Document(relative.encode(), text)

    def content_digest(self) -> str:
        """sha256 over relative paths and bytes; it differs between Python versions."""
        digest = hashlib.sha256(b"stdlib\n")
        for relative, content in self._modules():
            digest.update(f"{relative}\n{len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    def _modules(self) -> Iterator[tuple[str, bytes]]:
        for directory, names, files in os.walk(self._root):
            names[:] = sorted(
                name for name in names if name not in _LEFT_OUT_DIRECTORIES and not name.startswith(_GENERATED_PREFIXES)
            )
            for file in sorted(files):
                if file.endswith(".py") and not file.startswith(_GENERATED_PREFIXES):
                    path = Path(directory, file)
                    try:
                        content = path.read_bytes()
                    except OSError as error:
                        raise ConfigError(f"data.source=stdlib: {one_line(error)}") from error
                    yield path.relative_to(self._root).as_posix(), content


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
