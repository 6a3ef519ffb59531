"""The default corpus: the Python standard library's own sources, read in place (about 11 MB on any machine)."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.corpus_file import LocalFile, shared_files
from sparsejax.data.document import Document
from sparsejax.data.file_source import FileSource
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

    def __init__(self, left_out: frozenset[str] = frozenset()) -> None:
        """Raises ``ConfigError`` if this Python has no standard library sources on disk.

        Args:
          left_out: relative paths of modules that are not read.
        """
        self._left_out = left_out
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

    def without(self, held_out: FileSource) -> tuple[StdlibSource, str]:
        """This source without the modules that are files of ``held_out``, also as copies; see ``sources.Source``."""
        modules = [LocalFile(path, held_out.digests) for path in self._paths()]
        try:
            shared = shared_files(modules, held_out.files)
        except OSError as error:
            raise ConfigError(f"data.source=stdlib: {one_line(error)}") from error
        if not shared:
            return self, ""
        names = frozenset(Path(file.name).relative_to(self._root).as_posix() for file in shared)
        note = f"{len(names)} modules are in {held_out.where.field} too, and validate only: {', '.join(sorted(names))}"
        return StdlibSource(names), f"data.source=stdlib: {one_line(note)}"

    def _modules(self) -> Iterator[tuple[str, bytes]]:
        for path in self._paths():
            relative = path.relative_to(self._root).as_posix()
            if relative in self._left_out:
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"data.source=stdlib: {one_line(error)}") from error
            yield relative, content

    def _paths(self) -> Iterator[Path]:
        for directory, names, files in os.walk(self._root):
            names[:] = sorted(
                name for name in names if name not in _LEFT_OUT_DIRECTORIES and not name.startswith(_GENERATED_PREFIXES)
            )
            for file in sorted(files):
                if file.endswith(".py") and not file.startswith(_GENERATED_PREFIXES):
                    yield Path(directory, file)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
