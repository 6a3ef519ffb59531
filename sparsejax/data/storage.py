"""Files named by URIs: in a bucket, on a hub, or on this machine, through the file systems Arrow knows.

``gs://`` and ``s3://`` are read by Arrow itself, with the credentials their own tools leave on the machine;
``hf://`` (the Hugging Face Hub) and ``fsspec+<protocol>://`` by the package ``fsspec``, which must be installed.
Anything without ``://``, or with ``file://``, is a path on this machine. URIs are taken letter by letter: ``#``, ``?``,
``%`` and spaces are letters of a name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from sparsejax.data.cache import Stamp
from sparsejax.data.patterns import cut, fits
from sparsejax.files.durable import make_folder, sync_path
from sparsejax.files.text import one_line

# A bucket answers in tens of milliseconds, however little is asked for: what reads many small things does it in as many
# threads.
PARALLEL_READS = 16

_SCHEME = "://"
_URI = r"[A-Za-z][A-Za-z0-9+.-]*://"
_FILE = "file"
_FSSPEC = "fsspec+"
# What a bucket may be called: anything else is refused before a client waits for an answer. An account may precede it.
_GOOGLE_BUCKET = r"([^@]+@)?[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_BUCKETS = {"gs": _GOOGLE_BUCKET, "gcs": _GOOGLE_BUCKET, "s3": r"([^@]+@)?[A-Za-z0-9._:-]{3,255}"}
_COPY_BYTES = 1 << 23
# Arrow's own limit for a bucket that does not answer is a quarter of an hour of silence.
_GCS_RETRY_SECONDS = 60
# Where the errors of Google's library turn from what happened to the name-value pairs of its own history.
_GCS_DETAILS = " error_info="
_PARTIAL = ".partial-"
# In ns, later than now.
_NEVER = 2**63


def is_uri(text: str) -> bool:
    """Whether a path setting names something that is not on this machine; ``file://`` is."""
    return re.match(_URI, text) is not None and not text.startswith(f"{_FILE}{_SCHEME}")


def local_path(text: str) -> str:
    """The path that ``text`` names if it is no URI of another place: itself, or what follows ``file://``.

    Raises ``OSError`` for a URI that names another machine, or no path.
    """
    if not text.startswith(f"{_FILE}{_SCHEME}"):
        return os.path.expanduser(text)
    path = text.removeprefix(f"{_FILE}{_SCHEME}")
    if not path.startswith("/"):
        raise OSError(f"{text}: three slashes begin the URI of a file of this machine, as in file:///data/c4")
    return path


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its name if it has none: what file systems raise can be pages long."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.partition(_GCS_DETAILS)[0]


@dataclass(frozen=True)
class StoredFile:
    """A file behind a URI.

    Attributes:
      uri: its name for people.
      size: bytes.
      stamp: what tells it from its changed self without reading it.
    """

    uri: str
    size: int
    stamp: Stamp
    _filesystem: Any
    _path: str

    @property
    def identity(self) -> str:
        """The same for all URIs that name this file."""
        return f"{self._filesystem.type_name}:{self._path.strip('/')}"

    def copy_to(self, sink: BinaryIO | None) -> str:
        """Reads it once, into ``sink`` if there is one; returns its sha256. Raises ``OSError``."""
        with _named(self.uri):
            return _copy(self._filesystem, self._path, sink)

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Its bytes, read as they are asked for. Raises ``OSError``."""
        with _named(self.uri):
            file = self._filesystem.open_input_file(self._path)
        with file:
            yield file


def stored_files(pattern: str) -> list[StoredFile]:
    """The files that a URI or URI pattern matches, sorted by name; see ``patterns``.

    A URI is taken letter by letter, and for a pattern only if no file has that very name.

    Raises:
      IsADirectoryError: it names a folder.
      OSError: the store cannot be listed.
    """
    with _named(pattern):
        found = _stored_files(pattern)
    if found is None:
        raise IsADirectoryError(pattern)
    return found


def _stored_files(pattern: str) -> list[StoredFile] | None:
    """The files; ``None`` for a folder."""
    from pyarrow.fs import FileSelector, FileType

    filesystem, path = _filesystem(pattern)
    found = {pattern: filesystem.get_file_info(path)}
    if found[pattern].type == FileType.Directory:
        return None
    root, names = cut(pattern)
    if names and found[pattern].type != FileType.File:
        filesystem, path = _filesystem(root)
        deep = len(names) > 1 or names == ["**"]
        listed = filesystem.get_file_info(FileSelector(path, recursive=deep, allow_not_found=True))
        below = len(path.strip("/").split("/"))
        relative = [info.path.strip("/").split("/")[below:] for info in listed]
        found = {root + "/".join(way): info for way, info in zip(relative, listed, strict=True) if fits(way, names)}
    return [
        StoredFile(uri, info.size, _stamp(uri, info, filesystem), filesystem, info.path)
        for uri, info in sorted(found.items())
        if info.type == FileType.File
    ]


def _stamp(uri: str, info: Any, filesystem: Any) -> Stamp:
    from pyarrow.fs import PyFileSystem

    if isinstance(filesystem, PyFileSystem):
        # Arrow knows no times of these; ``fsspec`` has a key of all properties, among them digests or versions.
        return Stamp(f"{uri} {filesystem.handler.fs.ukey(info.path)}", 0)
    # A store that tells no times gives nothing to remember a file by.
    changed = _NEVER if info.mtime_ns is None else info.mtime_ns
    return Stamp(f"{uri} {info.size} {changed}", changed)


class StoredDirectory:
    """A directory on a disk or in a bucket, in which a file appears whole or not at all, power cuts included.

    Every method but ``remove_folder`` and ``remove_partials`` raises ``OSError`` when the file or the store cannot be
    used.
    """

    def __init__(self, location: str) -> None:
        """Opens ``location``, a path or a URI; nothing is created."""
        from pyarrow.fs import LocalFileSystem

        self.location = location.rstrip("/")
        if is_uri(location):
            self._filesystem, self._root = _filesystem(location)
        else:
            self._filesystem = LocalFileSystem()
            self._root = Path(local_path(location)).absolute().as_posix()
        # Where it lies on this machine, None if it does not.
        self.local = Path(self._root) if isinstance(self._filesystem, LocalFileSystem) else None

    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its name, ``a/b`` for file b of folder a; empty if the directory is absent."""
        from pyarrow.fs import FileSelector, FileType

        with _named(self.location):
            listed = self._filesystem.get_file_info(FileSelector(self._root, recursive=True, allow_not_found=True))
        cut = len(self._root.strip("/")) + 1
        return {
            info.path.strip("/")[cut:]: info.size
            for info in listed
            if info.type == FileType.File and _PARTIAL not in info.path
        }

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._named(name), self._filesystem.open_input_file(self._path(name)) as file:
            content: bytes = file.read()
        return content

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer if the file ends before."""
        with self._named(name), self._filesystem.open_input_file(self._path(name)) as file:
            content: bytes = file.read_at(length, start)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces a file."""
        with self._replaced(name) as sink:
            sink.write(content)

    def write_file(self, name: str, source: Path) -> None:
        """Makes or replaces a file with the bytes of a local one."""
        with self._replaced(name) as sink, source.open("rb") as file:
            while chunk := file.read(_COPY_BYTES):
                sink.write(chunk)

    def copy_to(self, name: str, sink: BinaryIO) -> str:
        """Copies a file into ``sink``; returns its sha256."""
        with self._named(name):
            return _copy(self._filesystem, self._path(name), sink)

    def copy_from(self, other: StoredDirectory, name: str, sha256: str) -> None:
        """Makes or replaces a file with that of another directory; ``OSError`` if its bytes have another digest."""
        with self._replaced(name) as sink:
            if other.copy_to(name, sink) != sha256:
                raise OSError(f"the checksum of {other.location}/{name} differs")

    def remove_folder(self, folder: str) -> None:
        """Deletes a folder of the directory and all that is in it, unless it is gone; never raises."""
        # A bucket has no folders: Arrow deletes the files, and then may not find the folder. Another process may be
        # deleting them too.
        with contextlib.suppress(OSError):
            self._filesystem.delete_dir(self._path(folder))

    def remove_partials(self) -> None:
        """Deletes what processes that were killed have left of files; never raises."""
        from pyarrow.fs import FileSelector

        with contextlib.suppress(OSError):
            listed = self._filesystem.get_file_info(FileSelector(self._root, recursive=True, allow_not_found=True))
            for info in listed:
                if _PARTIAL in info.base_name:
                    self._filesystem.delete_file(info.path)

    def _named(self, name: str) -> contextlib.AbstractContextManager[None]:
        return _named(f"{self.location}/{name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _replaced(self, name: str) -> Iterator[Any]:
        """A sink that becomes the file ``name`` when the block ends well, and nothing when it does not."""
        if self.local is not None:
            make_folder((self.local / name).parent)
        partial = f"{self._path(name)}{_PARTIAL}{secrets.token_hex(4)}"
        try:
            with self._named(name):
                sink = self._filesystem.open_output_stream(partial)
            with sink:
                yield sink
            with self._named(name):
                if self.local is not None:
                    sync_path(Path(partial))
                self._filesystem.move(partial, self._path(name))
                if self.local is not None:
                    sync_path((self.local / name).parent)
        except BaseException:
            with contextlib.suppress(OSError):
                self._filesystem.delete_file(partial)
            raise


def _filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path in it, which is the URI's letter by letter."""
    from pyarrow.fs import FileSystem

    scheme, _, rest = uri.partition(_SCHEME)
    bucket, slash, path = rest.partition("/")
    if not re.fullmatch(_BUCKETS[scheme] if scheme in _BUCKETS else ".+", bucket or path):
        raise OSError(f"{one_line(uri)}: {bucket!r} is not the name of a bucket; write {scheme}://bucket/path")
    if not scheme.startswith((_FSSPEC, "hf")):
        # Arrow would take ``#`` and ``?`` for the beginning of what is no path, and decode ``%``.
        retry = f"?retry_limit_seconds={_GCS_RETRY_SECONDS}" if scheme in ("gs", "gcs") else ""
        uri = f"{scheme}{_SCHEME}{bucket}{slash}{quote(path)}{retry}"
    with _named(uri):
        filesystem, path = FileSystem.from_uri(uri)
    return filesystem, path.rstrip("/")


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Any error as an ``OSError`` that names the file: buckets do not, and hubs raise what their network does."""
    try:
        yield
    except Exception as error:
        line = first_line(error)
        raise OSError(line if line.startswith(one_line(name)) else f"{one_line(name)}: {line}") from error


def _copy(filesystem: Any, path: str, sink: BinaryIO | None) -> str:
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path, compression=None) as file:
        while chunk := file.read(_COPY_BYTES):
            digest.update(chunk)
            if sink is not None:
                sink.write(chunk)
    return digest.hexdigest()
