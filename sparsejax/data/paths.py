"""From a path setting to files: comma-separated patterns, expanded and checked before anything is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.corpus_file import CorpusFile, FetchedFile, LocalFile
from sparsejax.data.storage import StoredFile, first_line, is_uri, stored_files
from sparsejax.files.text import one_line

# Characters of a value, and of a problem, that an error shows.
_SHOWN = 500


@dataclass(frozen=True)
class PathSetting:
    """A setting that names files.

    Attributes:
      field: its name in the configuration, such as ``data.path``.
      value: paths, URIs or patterns of either (``**`` descends), separated by commas; ``~`` is the home directory.
    """

    field: str
    value: str

    def error(self, problem: str) -> ConfigError:
        """The one-line error for this setting."""
        return ConfigError(f"{self.field}={one_line(self.value, _SHOWN)}: {one_line(problem, _SHOWN)}")

    def corpus_files(self, digests: FileDigests) -> list[CorpusFile]:
        """The files, patterns in the order given and each pattern's matches sorted by name; none twice.

        Args:
          digests: remembers the digests of the files.

        Raises:
          ConfigError: a pattern matches nothing, a directory is named, or a file has no bytes.
        """
        found: dict[str, CorpusFile] = {}
        for pattern in self._patterns():
            files: Iterable[CorpusFile]
            if is_uri(pattern):
                files = (FetchedFile(stored, digests) for stored in self._stored(pattern))
            else:
                files = (LocalFile(path, digests) for path in self._matches(pattern))
            found.update((file.name, file) for file in files)
        for file in found.values():
            if file.size == 0:
                raise self.error(f"{file.name} is empty; remove it or name other files")
        return list(found.values())

    def files(self) -> list[Path]:
        """As ``corpus_files``, of this machine only: a URI is a ``ConfigError`` too."""
        for pattern in self._patterns():
            if is_uri(pattern):
                raise self.error(f"{pattern} is not on this machine; copy it here first")
        found = dict.fromkeys(path for pattern in self._patterns() for path in self._matches(pattern))
        for path in found:
            if path.stat().st_size == 0:
                raise self.error(f"{path} is empty; remove it or name other files")
        return list(found)

    def _patterns(self) -> list[str]:
        patterns = [pattern.strip() for pattern in self.value.split(",") if pattern.strip()]
        if not patterns:
            raise self.error("names no file; give a path or a pattern such as 'corpus/*.jsonl.xz'")
        return patterns

    def _matches(self, pattern: str) -> list[Path]:
        expanded = os.path.expanduser(pattern)
        matches = [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
        if not matches:
            raise self.error(f"no file matches {pattern!r} in {os.getcwd()}; check the path")
        for match in matches:
            if os.path.isdir(match):
                raise self.error(f"{match} is a directory; name the files in it, such as '{match}/*'")
        return [Path(match) for match in matches]

    def _stored(self, pattern: str) -> list[StoredFile]:
        try:
            stored = stored_files(pattern)
        except OSError as error:
            raise self.error(f"cannot be listed: {first_line(error)}") from error
        if not stored:
            raise self.error(f"no file matches {pattern!r}; check the path")
        return stored

    def file(self) -> Path:
        """The one file; raises ``ConfigError`` if the setting names none or several."""
        files = self.files()
        if len(files) > 1:
            raise self.error(f"matches {len(files)} files; name one")
        return files[0]
