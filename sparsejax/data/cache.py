"""The cache directory: digests of files that are not read twice, and entries that appear whole or not at all.

An *entry* is a directory. It is written under another name beside its place, flushed to disk and renamed, so a
reader never sees half of one; of two processes that build the same entry one wins and both read the winner's,
which is equal because an entry's name is a hash of everything that defines its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparsejax.config import ConfigError
from sparsejax.files.durable import sync_path

Notice = Callable[[str], None]
Entry = TypeVar("Entry")

_HASH_CHUNK = 1 << 22
_HEX_DIGITS = hashlib.sha256().digest_size * 2
# A file that changed so shortly before it was read may change again and keep its times: clocks of file systems tick,
# some once in two seconds, and that of a server may go after ours.
_SETTLED_NS = 10 * 10**9
# Each failed attempt means another process replaced the entry between our look and our read.
_ATTEMPTS = 5
# A build that has written nothing for so long is none.
_ABANDONED_SECONDS = 24 * 3600


class CorruptEntryError(Exception):
    """A cache entry that cannot be used; the text says why."""


def cache_root(cache_dir: str) -> Path:
    """Directory of all cached data, created if absent.

    ``cache_dir`` if it is not empty, else ``$SPARSEJAX_CACHE``, else ``$XDG_CACHE_HOME/sparsejax``, else
    ``~/.cache/sparsejax``. Raises ``ConfigError`` when it cannot be created or written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = os.environ.get("SPARSEJAX_CACHE") or os.path.join(base, "sparsejax")
    try:
        root = Path(cache_dir or default).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(
            f"data.cache_dir={cache_dir or default}: there is no such home directory; name another one"
        ) from None
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


@dataclass(frozen=True)
class Stamp:
    """A name of a file that changes when the file does, made without reading it.

    Attributes:
      text: changes with the file.
      changed_ns: time of the last change, in ns since 1970.
    """

    text: str
    changed_ns: int


def file_stamp(path: Path) -> Stamp:
    """The stamp of a file of this machine, or of the file that a link leads to.

    Size and modification time can be set back (``touch``, ``cp -p``, ``rsync``). The inode number changes when another
    file takes the name, and no program sets the time of the last status change.
    """
    stat = path.stat()
    times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
    return Stamp(f"{path.absolute()} {stat.st_ino} {stat.st_size} {times}", stat.st_ctime_ns)


class FileDigests:
    """sha256 of files, remembered as long as their stamps do not change, so that a corpus is hashed once."""

    def __init__(self, directory: Path) -> None:
        """Keeps one small file per remembered digest in ``directory``."""
        self._directory = directory

    def digest(self, path: Path) -> str:
        """Hexadecimal sha256 of the bytes of ``path``."""
        return self.remembered("sha256", [file_stamp(path)], lambda: file_sha256(path))

    def remembered(self, purpose: str, stamps: Sequence[Stamp], compute: Callable[[], str]) -> str:
        """The sha256 ``compute()`` gives, computed once per purpose until one of the ``stamps`` changes.

        Nothing is remembered of files that changed just now: they may change once more within a tick of their clock.
        """
        key = _key(purpose, stamps)
        memo = self._directory / key
        known = memo.read_bytes() if memo.exists() else b""
        if known == _checked(key, known[:_HEX_DIGITS]):
            return known[:_HEX_DIGITS].decode()
        began = time.time_ns()
        value = compute()
        if all(stamp.changed_ns < began - _SETTLED_NS for stamp in stamps):
            self._write(key, value)
        return value

    def written(self, path: Path, sha256: str) -> None:
        """Remembers the digest of a file that this process has just written, and no other will change."""
        self._write(_key("sha256", [file_stamp(path)]), sha256)

    def _write(self, key: str, value: str) -> None:
        # Not synced: what a power cut leaves of it is no whole one.
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = _beside(self._directory / key)
        temporary.write_bytes(_checked(key, value.encode()))
        temporary.replace(self._directory / key)


def _key(purpose: str, stamps: Sequence[Stamp]) -> str:
    # Names of files need not be UTF-8.
    text = "\n".join([purpose, *(stamp.text for stamp in stamps)]).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def _checked(key: str, value: bytes) -> bytes:
    """A remembered value with a digest of itself: half of one, or one with another bit, is computed again."""
    return value + b" " + hashlib.sha256(key.encode() + value).hexdigest().encode()


def open_or_build(entry: Path, read: Callable[[Path], Entry], write: Callable[[Path], None], notice: Notice) -> Entry:
    """Read a cache entry with ``read(entry)``, built first by ``write(directory)`` if it is absent or corrupt.

    Args:
      entry: the directory the entry lives in.
      read: opens and verifies it; raises ``CorruptEntryError`` or ``OSError`` if it cannot be used.
      write: fills an empty directory with the entry's files.
      notice: told when a corrupt entry is thrown away.

    Raises:
      ConfigError: what was built cannot be read, again and again.
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
    raise ConfigError(
        f"cache entry {entry}: was built {_ATTEMPTS} times and is still corrupt ({problem}); "
        "name another data.cache_dir"
    )


def _publish(entry: Path, write: Callable[[Path], None]) -> None:
    _remove_left_overs(entry.parent)
    temporary = _beside(entry)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for path in [*temporary.iterdir(), temporary]:
            sync_path(path)
        try:
            temporary.rename(entry)
        except OSError:
            # The name is taken: another process was first, and wrote the same content.
            if not entry.is_dir():
                raise
        sync_path(entry.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_left_overs(directory: Path) -> None:
    """Removes what builds that were killed have left; those of other hosts may be under way."""
    for path in directory.glob(".*"):
        # Another process may remove it too.
        with contextlib.suppress(OSError):
            written = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if written < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


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
