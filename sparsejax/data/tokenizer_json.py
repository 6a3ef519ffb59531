"""Tokenizers stored as ``tokenizer.json`` of the Hugging Face ``tokenizers`` library: given ones and our own BPE."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.hub_tokens import special_tokens
from sparsejax.data.tokenizer_meta import MAX_VOCABULARY, TokenizerMeta
from sparsejax.files.durable import replace_file
from sparsejax.files.json_records import decode_record
from sparsejax.files.text import one_line

_MODEL_FILE = "tokenizer.json"


class JsonTokenizer:
    """A ``tokenizer.json`` and the ids of begin and end of text. Text that spells a special token is plain text."""

    kind = "hf"

    def __init__(self, definition: bytes, start_id: int, end_id: int) -> None:
        """Opens the bytes of a ``tokenizer.json``.

        Raises:
          ValueError: they are something else, or an id is outside the vocabulary, or the vocabulary is too large.
        """
        self._tokenizer = _backend(definition)
        self._definition = definition
        self.vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.vocab_size: int = max(self.vocabulary.values(), default=-1) + 1
        if self.vocab_size > MAX_VOCABULARY:
            raise ValueError(f"it has the id {self.vocab_size - 1}, ids are below {MAX_VOCABULARY}")
        if not {start_id, end_id} <= set(self.vocabulary.values()):
            raise ValueError(f"begin {start_id} or end {end_id} is none of its {len(self.vocabulary)} ids")
        self.start_id = start_id
        self.end_id = end_id
        self.digest = hashlib.sha256(f"json {start_id} {end_id}\n".encode() + definition).hexdigest()

    @classmethod
    def from_file(cls, path: Path) -> JsonTokenizer:
        """Opens a file of the hub; what files beside it say of begin and end is in ``hub_tokens``.

        Raises:
          ValueError: the file is something else or no end-of-text token is found.
        """
        definition = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        special = special_tokens(path.parent, _backend(definition).get_vocab())
        if special.added:
            definition = _with_added(definition, special.added)
        return cls(definition, special.start_id, special.end_id)

    def encode(self, text: str) -> list[int]:
        """The ids of the text, without the special tokens a template would add."""
        with _refusing(ConfigError, "tokenizer.json: cannot encode this text, name another tokenizer"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text and the end id, on all cores."""
        with _refusing(ConfigError, "tokenizer.json: cannot encode this text, name another tokenizer"):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self.end_id] for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        text: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def token_bytes(self) -> np.ndarray:
        """``[vocab_size]`` int64; UTF-8 bytes of text that each id stands for, see ``Tokenizer``."""
        spelled = _decodes_letters(decode_record(self._definition, dict[str, Any], name=_MODEL_FILE, fix="restore it"))
        sizes_V = np.zeros(self.vocab_size, np.int64)
        for piece, token in self.vocabulary.items():
            sizes_V[token] = len(piece) if spelled else _piece_bytes(piece)
        for token, added in self._tokenizer.get_added_tokens_decoder().items():
            sizes_V[token] = 0 if added.special else len(added.content.encode())
        sizes_V[[self.start_id, self.end_id]] = 0
        return sizes_V

    def gaps(self) -> list[int]:
        """Ids that the vocabulary skips."""
        return sorted(set(range(self.vocab_size)) - set(self.vocabulary.values()))

    def save(self, directory: Path) -> None:
        """Writes the ``tokenizer.json`` unchanged."""
        TokenizerMeta(self.kind, self.start_id, self.end_id).write(directory)
        replace_file(directory / _MODEL_FILE, self._definition)

    @classmethod
    def load(cls, directory: Path, meta: TokenizerMeta) -> JsonTokenizer:
        """Opens what ``save`` wrote."""
        return cls((directory / _MODEL_FILE).read_bytes(), meta.start_id, meta.end_id)


def _backend(definition: bytes) -> Any:
    """The library's tokenizer; raises ``ValueError``."""
    # The library warns on every later fork, subprocesses included, unless this is decided beforehand.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import tokenizers

    with _refusing(ValueError, "not a tokenizer.json"):
        found = tokenizers.Tokenizer.from_buffer(definition)
    found.encode_special_tokens = True
    found.no_truncation()
    found.no_padding()
    return found


@contextlib.contextmanager
def _refusing(kind: type[ValueError], problem: str) -> Iterator[None]:
    """Raise any error of the library as one of another kind."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # The library raises plain Exception, and where its native code panics an error that is not even that.
        raise kind(f"{problem} ({one_line(error)})") from error


def _with_added(definition: bytes, tokens: Mapping[str, int]) -> bytes:
    """A ``tokenizer.json`` with more special tokens."""
    fields = decode_record(definition, dict[str, Any], name=_MODEL_FILE, fix="restore it from a copy")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    more = [{"id": number, "content": name} | plain for name, number in tokens.items()]
    before = fields.get("added_tokens") or []
    fields["added_tokens"] = sorted([*before, *more], key=lambda token: token["id"])
    definition = msgspec.json.encode(fields)
    vocabulary = _backend(definition).get_vocab()
    for name, number in tokens.items():
        if vocabulary.get(name) != number:
            raise ValueError(f"the token {one_line(repr(name))} cannot have the id {number}")
    return definition


def _decodes_letters(definition: Mapping[str, Any]) -> bool:
    """Tell whether a piece is written in letters that each stand for one byte."""
    decoder = definition.get("decoder") or {}
    steps = decoder.get("decoders") or [decoder]
    return any(step.get("type") == "ByteLevel" for step in steps)


def _piece_bytes(piece: str) -> int:
    """Bytes of a piece as SentencePiece writes them: a lower block for a space, ``<0x0A>`` for a byte."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return 1
    return len(piece.replace("\u2581", " ").encode())
