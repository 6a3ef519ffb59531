"""Tokenizers stored as ``tokenizer.json`` of the Hugging Face ``tokenizers`` library: given ones and our own BPE."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsejax.data.tokenizer_meta import TokenizerMeta

_MODEL_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
# Looked for, in this order, when no tokenizer_config.json beside the file names the tokens.
_BEGIN_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>")
_END_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>")


class JsonTokenizer:
    """A ``tokenizer.json`` and the ids of begin and end of text. Text that spells a special token is plain text."""

    kind = "hf"

    def __init__(self, definition: bytes, start_id: int, end_id: int) -> None:
        """Opens the bytes of a ``tokenizer.json``; raises ``ValueError`` if they are something else."""
        # The library warns on every later fork, subprocesses included, unless this is decided beforehand.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(definition)
        except Exception as error:
            # The library raises plain Exception.
            raise ValueError(f"not a tokenizer.json ({error})") from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._definition = definition
        self.vocab_size: int = max(self._tokenizer.get_vocab().values()) + 1
        self.start_id = start_id
        self.end_id = end_id
        self.digest = hashlib.sha256(f"json {start_id} {end_id}\n".encode() + definition).hexdigest()

    @classmethod
    def from_file(cls, path: Path) -> JsonTokenizer:
        """Opens a file of the hub; begin and end come from ``tokenizer_config.json`` beside it, or usual names.

        Raises ``ValueError`` if the file is something else or no end-of-text token is found.
        """
        definition = path.read_bytes()
        vocabulary = cls(definition, 0, 0)._tokenizer.get_vocab()
        begin, end = _special_names(path.with_name(_CONFIG_FILE), vocabulary)
        if end not in vocabulary:
            raise ValueError(f"no end-of-text token: none of {', '.join(_END_NAMES)}, and no {_CONFIG_FILE} names one")
        end_id = vocabulary[end]
        return cls(definition, vocabulary.get(begin, end_id), end_id)

    def encode(self, text: str) -> list[int]:
        """The ids of the text, without the special tokens a template would add."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text and the end id, on all cores."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self.end_id] for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        text: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def save(self, directory: Path) -> None:
        """Writes the ``tokenizer.json`` unchanged."""
        TokenizerMeta(self.kind, self.start_id, self.end_id).write(directory)
        (directory / _MODEL_FILE).write_bytes(self._definition)

    @classmethod
    def load(cls, directory: Path, meta: TokenizerMeta) -> JsonTokenizer:
        """Opens what ``save`` wrote."""
        return cls((directory / _MODEL_FILE).read_bytes(), meta.start_id, meta.end_id)


def _special_names(config_file: Path, vocabulary: dict[str, int]) -> tuple[str, str]:
    """Names of begin and end; an empty string stands for none."""
    if config_file.is_file():
        named = json.loads(config_file.read_text())
        return _token_name(named, "bos_token"), _token_name(named, "eos_token")
    begin = next((name for name in _BEGIN_NAMES if name in vocabulary), "")
    return begin, next((name for name in _END_NAMES if name in vocabulary), "")


def _token_name(named: dict[str, Any], key: str) -> str:
    """A token is spelled as a string, as an object with ``content``, as null, or not at all."""
    token = named.get(key)
    if isinstance(token, dict):
        return str(token["content"])
    return token or ""
