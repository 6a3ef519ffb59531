"""From a path setting to files: comma-separated patterns, expanded and checked before anything is read."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from sparsejax.config import ConfigError


@dataclass(frozen=True)
class PathSetting:
    """A setting that names files.

    Attributes:
      field: its name in the configuration, such as ``data.path``.
      value: paths or glob patterns (``**`` descends), separated by commas; ``~`` is the home directory.
    """

    field: str
    value: str

    def error(self, problem: str) -> ConfigError:
        """The one-line error for this setting."""
        return ConfigError(f"{self.field}={self.value}: {problem}")

    def files(self) -> list[Path]:
        """The files, patterns in the order given and each pattern's matches sorted by name; none twice.

        Raises:
          ConfigError: a pattern matches nothing, a directory is named, or a file has no bytes.
        """
        found: dict[Path, None] = {}
        patterns = [pattern.strip() for pattern in self.value.split(",") if pattern.strip()]
        if not patterns:
            raise self.error("names no file; give a path or a pattern such as 'corpus/*.jsonl.xz'")
        for pattern in patterns:
            expanded = os.path.expanduser(pattern)
            matches = [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
            if not matches:
                raise self.error(f"no file matches {pattern!r} in {os.getcwd()}; check the path")
            found.update(dict.fromkeys(Path(match) for match in matches))
        for path in found:
            if path.is_dir():
                raise self.error(f"{path} is a directory; name the files in it, such as '{path}/*'")
            if path.stat().st_size == 0:
                raise self.error(f"{path} is empty; remove it or name other files")
        return list(found)

    def file(self) -> Path:
        """The one file; raises ``ConfigError`` if the setting names none or several."""
        files = self.files()
        if len(files) > 1:
            raise self.error(f"matches {len(files)} files; name one")
        return files[0]
