"""The cache directory: digests of files that are not read twice, and entries that appear whole or not at all.

An *entry* is a directory. It is written under another name beside its place, flushed to disk and renamed, so a
reader never sees half of one; of two processes that build the same entry one wins and both read the winner's,
which is equal because an entry's name is a hash of everything that defines its content.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sparsejax.config import ConfigError

Notice = Callable[[str], None]
Entry = TypeVar("Entry")

_HASH_CHUNK = 1 << 22
# Each failed attempt means another process replaced the entry between our look and our read.
_ATTEMPTS = 5


class CorruptEntryError(Exception):
    """A cache entry that cannot be used; the text says why."""


def cache_root(cache_dir: str) -> Path:
    """Directory of all cached data, created if absent.

    ``cache_dir`` if it is not empty, else ``$SPARSEJAX_CACHE``, else ``$XDG_CACHE_HOME/sparsejax``, else
    ``~/.cache/sparsejax``. Raises ``ConfigError`` when it cannot be created or written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = os.environ.get("SPARSEJAX_CACHE") or os.path.join(base, "sparsejax")
    root = Path(cache_dir or default).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.cache_dir={root}: cannot be created ({error.strerror}); name another one") from error
    if not os.access(root, os.W_OK):
        raise ConfigError(f"data.cache_dir={root}: is not writable; name another one")
    return root


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_stamp(path: Path) -> str:
    """Path, size and modification time in ns of a file."""
    stat = path.stat()
    return f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"


class FileDigests:
    """sha256 of files, remembered by (path, size, modification time in ns) so a corpus is hashed once."""

    def __init__(self, directory: Path) -> None:
        """Keeps one small file per remembered digest in ``directory``."""
        self._directory = directory

    def digest(self, path: Path) -> str:
        """Hexadecimal sha256 of the bytes of ``path``."""
        return self.remembered("sha256", [file_stamp(path)], lambda: file_sha256(path))

    def remembered(self, purpose: str, stamps: Sequence[str], compute: Callable[[], str]) -> str:
        """The sha256 ``compute()`` gives, computed once per purpose until one of the ``stamps`` changes.

        A stamp is what a file is told from its changed self by without reading it, see ``file_stamp``.
        """
        memo = self._directory / hashlib.sha256("\n".join([purpose, *stamps]).encode()).hexdigest()
        known = memo.read_text() if memo.exists() else ""
        if len(known) == hashlib.sha256().digest_size * 2:
            return known
        value = compute()
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = _beside(memo)
        temporary.write_text(value)
        temporary.replace(memo)
        return value


def open_or_build(entry: Path, read: Callable[[Path], Entry], write: Callable[[Path], None], notice: Notice) -> Entry:
    """What ``read(entry)`` returns, after ``write(directory)`` has built the entry if it is absent or corrupt.

    Args:
      entry: the directory the entry lives in.
      read: opens and verifies it; raises ``CorruptEntryError`` or ``OSError`` if it cannot be used.
      write: fills an empty directory with the entry's files.
      notice: told when a corrupt entry is thrown away.
    """
    problem = ""
    for _ in range(_ATTEMPTS):
        if entry.is_dir():
            try:
                return read(entry)
            except (CorruptEntryError, OSError) as error:
                problem = str(error)
                notice(f"cache entry {entry} is corrupt ({problem}): building it again")
                _discard(entry)
        _publish(entry, write)
    raise RuntimeError(f"cache entry {entry} was built {_ATTEMPTS} times and is still corrupt: {problem}")


def _publish(entry: Path, write: Callable[[Path], None]) -> None:
    temporary = _beside(entry)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        try:
            temporary.rename(entry)
        except OSError:
            # The name is taken: another process was first, and wrote the same content.
            if not entry.is_dir():
                raise
        _flush(entry.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _discard(entry: Path) -> None:
    # Renamed first: other processes must see the entry whole or absent, never half deleted.
    aside = _beside(entry)
    try:
        entry.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
