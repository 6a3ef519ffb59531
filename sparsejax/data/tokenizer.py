"""What a tokenizer is, and how one is opened from a file or from the directory of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sparsejax.config import ConfigError
from sparsejax.data.paths import PathSetting
from sparsejax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from sparsejax.data.tokenizer_json import JsonTokenizer
from sparsejax.data.tokenizer_meta import TokenizerMeta


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      vocab_size: ids are in ``[0, vocab_size)``.
      start_id: the input in front of a row's first target: the begin-of-text id, or ``end_id`` if there is none.
      end_id: stands after every document.
      digest: hexadecimal sha256 of everything that defines it.
    """

    vocab_size: int
    start_id: int
    end_id: int
    digest: str

    def encode(self, text: str) -> list[int]:
        """The ids of a text; neither ``start_id`` nor ``end_id`` is added, and no text encodes to them."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text followed by one ``end_id``."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; ``start_id`` and ``end_id`` become nothing, broken UTF-8 becomes U+FFFD."""
        ...

    def save(self, directory: Path) -> None:
        """Writes all that ``load_tokenizer`` needs into ``directory``, which is created if absent."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8, and one end id."""

    vocab_size = 257
    start_id = 256
    end_id = 256
    digest = hashlib.sha256(b"sparsejax bytes 0-255, end 256").hexdigest()

    def encode(self, text: str) -> list[int]:
        """One id per byte of the UTF-8 encoding."""
        return list(text.encode())

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """One id per byte, and the end id."""
        return [[*text.encode(), self.end_id] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The bytes as text."""
        return bytes(token for token in ids if token != self.end_id).decode("utf-8", "replace")

    def save(self, directory: Path) -> None:
        """Writes its name; there is nothing else to it."""
        TokenizerMeta("byte", self.start_id, self.end_id).write(directory)


def fixed_tokenizer(kind: str, path: str) -> Tokenizer:
    """A tokenizer that no text has to be read for: bytes, or one in a file; raises ``ConfigError`` as for a file."""
    return ByteTokenizer() if kind == "byte" else open_tokenizer_file(kind, path)


def open_tokenizer_file(kind: str, path: str) -> Tokenizer:
    """The tokenizer in a file.

    Args:
      kind: ``sentencepiece`` (a ``.model`` file) or ``hf`` (a ``tokenizer.json``).
      path: the value of ``data.tokenizer_path``.

    Raises:
      ConfigError: there is no such file, it is something else, or it has no end-of-text id.
    """
    where = PathSetting("data.tokenizer_path", path)
    file = where.file()
    try:
        return JsonTokenizer.from_file(file) if kind == "hf" else SentencePieceTokenizer(file.read_bytes())
    except ValueError as error:
        raise where.error(f"{error}; name another file or another data.tokenizer") from error


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer that ``save`` wrote into ``directory``; raises ``ConfigError`` if there is none."""
    try:
        meta = TokenizerMeta.read(directory)
        if meta.kind == "byte":
            return ByteTokenizer()
        if meta.kind == SentencePieceTokenizer.kind:
            return SentencePieceTokenizer.load(directory)
        if meta.kind == JsonTokenizer.kind:
            return JsonTokenizer.load(directory, meta)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokenizer directory {directory}: holds no usable tokenizer ({error})") from error
    raise ConfigError(f"tokenizer directory {directory}: its kind {meta.kind!r} is unknown to this version")
