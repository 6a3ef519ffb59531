"""Tokenizers: their protocol, and opening one from a file or from the directory of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.paths import PathSetting
from sparsejax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from sparsejax.data.tokenizer_json import JsonTokenizer
from sparsejax.data.tokenizer_meta import FIX, TokenizerMeta
from sparsejax.files.text import one_line

# Tokenizer files of the hub, in the order they are looked for.
HUB_FILES = {"tokenizer.json": JsonTokenizer.kind, "tokenizer.model": SentencePieceTokenizer.kind}


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

    def token_bytes(self) -> np.ndarray:
        """``[vocab_size]`` int64; UTF-8 bytes of text that each id stands for, 0 for start, end and control tokens.

        Exact for bytes and byte-level tokenizers. Others change the text before they cut it, so a sum over their ids
        is that of a text up to a factor, which is near 1.
        """
        ...

    def gaps(self) -> list[int]:
        """Ids below ``vocab_size`` that stand for nothing."""
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

    def token_bytes(self) -> np.ndarray:
        """1 for each byte."""
        return (np.arange(self.vocab_size) != self.end_id).astype(np.int64)

    def gaps(self) -> list[int]:
        """None."""
        return []

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
    try:
        return _of_file(kind, where.file())
    except ConfigError:
        raise
    except ValueError as error:
        raise where.error(f"{error}; name another file or another data.tokenizer") from error


def hub_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer beside a checkpoint of the hub: ``tokenizer.json``, or else ``tokenizer.model``.

    Raises:
      ConfigError: there is none, or it cannot be used.
    """
    name = next((name for name in HUB_FILES if (directory / name).is_file()), None)
    if name is None:
        raise ConfigError(f"{directory}: has no tokenizer ({' or '.join(HUB_FILES)}); copy one beside the weights")
    try:
        return _of_file(HUB_FILES[name], directory / name)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{directory / name}: {error}; copy the tokenizer of the checkpoint") from error


def _of_file(kind: str, file: Path) -> Tokenizer:
    return JsonTokenizer.from_file(file) if kind == JsonTokenizer.kind else SentencePieceTokenizer(file.read_bytes())


def load_tokenizer(directory: Path, digest: str = "") -> Tokenizer:
    """The tokenizer that ``save`` wrote into ``directory``.

    Args:
      directory: where it lies.
      digest: what its ``digest`` must be; empty for any.

    Raises:
      ConfigError: there is none, it is damaged, or it is another one.
    """
    meta = TokenizerMeta.read(directory)
    try:
        found = _saved(directory, meta)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokenizer directory {directory}: holds no usable tokenizer ({error}); {FIX}") from error
    if found is None:
        kind = one_line(repr(meta.kind))
        raise ConfigError(f"tokenizer directory {directory}: its kind {kind} is unknown to this version")
    if (found.start_id, found.end_id) != (meta.start_id, meta.end_id):
        raise ConfigError(
            f"tokenizer directory {directory}: begin and end of text are {meta.start_id} and {meta.end_id} in "
            f"tokenizer_meta.json, {found.start_id} and {found.end_id} in the tokenizer; {FIX}"
        )
    if digest and found.digest != digest:
        raise ConfigError(
            f"tokenizer directory {directory}: was changed, its digest is {found.digest[:12]} and was {digest[:12]}; "
            f"{FIX}"
        )
    return found


def _saved(directory: Path, meta: TokenizerMeta) -> Tokenizer | None:
    if meta.kind == "byte":
        return ByteTokenizer()
    if meta.kind == SentencePieceTokenizer.kind:
        return SentencePieceTokenizer.load(directory)
    if meta.kind == JsonTokenizer.kind:
        return JsonTokenizer.load(directory, meta)
    return None
