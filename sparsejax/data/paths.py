"""From a path setting to files: comma-separated patterns, expanded and checked before anything is read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.corpus_file import CorpusFile, FetchedFile, LocalFile, file_identity
from sparsejax.data.patterns import cut, local_files
from sparsejax.data.storage import first_line, is_uri, local_path, stored_files
from sparsejax.files.text import one_line

# Characters of a value, and of a problem, that an error shows.
_SHOWN = 500


@dataclass(frozen=True)
class PathSetting:
    """A setting that names files.

    Attributes:
      field: its name in the configuration, such as ``data.path``.
      value: paths, URIs or patterns of either (see ``patterns``), separated by commas; ``~`` is the home directory.
    """

    field: str
    value: str

    def error(self, problem: str) -> ConfigError:
        """The one-line error for this setting."""
        return ConfigError(f"{self.field}={one_line(self.value, _SHOWN)}: {one_line(problem, _SHOWN)}")

    def corpus_files(self, digests: FileDigests) -> list[CorpusFile]:
        """The files, patterns in the order given and each pattern's matches sorted by name.

        A file is there once, under the first of its names: links, ``./`` and patterns that overlap add nothing.

        Args:
          digests: remembers the digests of the files.

        Raises:
          ConfigError: a pattern matches nothing, a directory is named, or a file is empty or cannot be read.
        """
        found: dict[str, CorpusFile] = {}
        for pattern in self._patterns():
            for file in self._matches(pattern, digests):
                found.setdefault(file.identity, file)
        for file in found.values():
            if file.size == 0:
                raise self.error(f"{file.name} is empty; remove it or name other files")
        return list(found.values())

    def file(self) -> Path:
        """The one file, on this machine; raises ``ConfigError`` if the setting names none or several."""
        found: dict[str, Path] = {}
        for pattern in self._patterns():
            if is_uri(pattern):
                raise self.error(f"{pattern} is not on this machine; copy it here first")
            for path in self._local(pattern):
                found.setdefault(file_identity(path), path)
        if len(found) > 1:
            raise self.error(f"matches {len(found)} files; name one")
        (path,) = found.values()
        if path.stat().st_size == 0:
            raise self.error(f"{path} is empty; name another file")
        return path

    def _patterns(self) -> list[str]:
        # A file may have a comma in its name.
        whole = os.path.isfile(os.path.expanduser(self.value))
        patterns = [self.value] if whole else [part.strip() for part in self.value.split(",") if part.strip()]
        if not patterns:
            raise self.error("names no file; give a path or a pattern such as 'corpus/*.jsonl.xz'")
        return patterns

    def _matches(self, pattern: str, digests: FileDigests) -> list[CorpusFile]:
        if not is_uri(pattern):
            return [LocalFile(path, digests) for path in self._local(pattern)]
        try:
            stored = stored_files(pattern)
        except IsADirectoryError as error:
            raise self._folder(pattern) from error
        except OSError as error:
            raise self.error(f"cannot be listed: {first_line(error)}") from error
        if not stored:
            raise self.error(f"no file matches {pattern!r}; check the path")
        return [FetchedFile(file, digests) for file in stored]

    def _local(self, pattern: str) -> list[Path]:
        """The files of this machine that a pattern matches; all can be looked up."""
        try:
            location = local_path(pattern)
            if os.path.isdir(location):
                raise self._folder(location)
            folder, names = cut(location)
            # A link that leads nowhere is there too, and is refused below.
            found = [location] if os.path.lexists(location) else local_files(folder, names) if names else []
            if not found:
                raise self.error(f"no file matches {pattern!r} in {os.getcwd()}; check the path")
            for path in found:
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise self.error(f"{path} is no regular file; copy what it gives into one")
        except OSError as error:
            raise self.error(f"cannot be read: {first_line(error)}") from error
        return [Path(path) for path in found]

    def _folder(self, location: str) -> ConfigError:
        return self.error(f"{location} is a directory; name the files in it, such as '{location.rstrip('/')}/*'")
