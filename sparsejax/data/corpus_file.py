"""One file of a corpus, on this machine or behind a URI: what it is called, its digest, and how it is read."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from sparsejax.data.cache import FileDigests, Stamp, file_sha256, file_stamp
from sparsejax.data.storage import StoredFile


class CorpusFile(Protocol):
    """A file that can be read any number of times."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def identity(self) -> str:
        """The same for all names of the file, and no other file's."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def stamp(self) -> Stamp:
        """What tells it from its changed self without reading it; may raise ``OSError``."""
        ...

    def digest(self) -> str:
        """Hexadecimal sha256 of its bytes, remembered until it changes; may raise ``OSError``."""
        ...

    def stream(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Its bytes where they lie, to look at some of them; may raise ``OSError``."""
        ...

    def opened(self) -> contextlib.AbstractContextManager[Path]:
        """Where its bytes are on this machine for as long as the block runs; may raise ``OSError``."""
        ...


def file_identity(path: Path) -> str:
    """Device and inode of a file of this machine: the same for its links of both kinds, whatever path leads there."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def shared_files(files: Sequence[CorpusFile], others: Sequence[CorpusFile]) -> list[CorpusFile]:
    """Those of ``files`` that are among ``others``, by themselves or as a copy with the same bytes.

    Only files of equal size are read. May raise ``OSError``.
    """
    identities = {other.identity for other in others}

    def is_shared(file: CorpusFile) -> bool:
        return file.identity in identities or any(
            other.size == file.size and other.digest() == file.digest() for other in others
        )

    return [file for file in files if is_shared(file)]


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine; one that is no longer what it was when it was read is an ``OSError``."""

    path: Path
    digests: FileDigests
    _read: list[Stamp] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def identity(self) -> str:
        """See ``file_identity``."""
        return file_identity(self.path)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def stamp(self) -> Stamp:
        """See ``file_stamp``."""
        found = file_stamp(self.path)
        if any(found != read for read in self._read):
            raise OSError("it changed while it was read; run the command again")
        return found

    def digest(self) -> str:
        """Hexadecimal sha256 of its bytes."""
        return self.digests.remembered("sha256", [self.stamp], lambda: file_sha256(self.path))

    def stream(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Its bytes."""
        return self.path.open("rb")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Its own path."""
        read = self.stamp
        yield self.path
        self._read[:] = [read]
        # Whatever was read after a change would go by another name.
        _ = self.stamp


@dataclass(frozen=True)
class FetchedFile:
    """A file behind a URI, copied whole into the temporary directory while it is read.

    One large read in sequence is what buckets serve best, the copy is digested as it arrives, and every format is
    read as if it were local. At most one file of a corpus is there at a time.
    """

    stored: StoredFile
    digests: FileDigests

    @property
    def name(self) -> str:
        """Its URI."""
        return self.stored.uri

    @property
    def identity(self) -> str:
        """The file system and the path in it."""
        return self.stored.identity

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stored.size

    @property
    def stamp(self) -> Stamp:
        """The stamp that it was listed with."""
        return self.stored.stamp

    def stream(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Its bytes; what is not read does not travel."""
        return self.stored.opened()

    def digest(self) -> str:
        """Hexadecimal sha256 of its bytes; reads it unless it was fetched or digested before."""
        return self.digests.remembered("sha256", [self.stored.stamp], lambda: self.stored.copy_to(None))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """A copy, deleted when the block ends."""
        with tempfile.TemporaryDirectory(prefix="sparsejax-") as directory:
            copy = Path(directory, "copy")
            with copy.open("wb") as sink:
                found = self.stored.copy_to(sink)
            if copy.stat().st_size != self.size:
                raise OSError(f"{copy.stat().st_size} of {self.size} bytes arrived; run the command again")
            if self.digests.remembered("sha256", [self.stored.stamp], lambda: found) != found:
                raise OSError("it changed while it was read; run the command again")
            yield copy
