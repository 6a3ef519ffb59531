"""Tokenizers stored as SentencePiece models (Kudo and Richardson, arXiv 1808.06226), such as those of T5 and LLaMA."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsejax.data.tokenizer_meta import MAX_VOCABULARY, TokenizerMeta
from sparsejax.files.durable import replace_file

_MODEL_FILE = "tokenizer.model"
_ABSENT = -1


class SentencePieceTokenizer:
    """A SentencePiece model, with its own ids for begin (if it has one) and end of text.

    A model may normalise: T5's turns newlines and runs of spaces into one space, so decoding does not give the
    text back. Models with byte fallback and identity normalisation, such as LLaMA's, do.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        """Opens the bytes of a ``.model`` file; raises ``ValueError`` if they are no model or it has no end id."""
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
        if self._processor.eos_id() == _ABSENT:
            raise ValueError("the SentencePiece model has no end-of-text (eos) piece")
        try:
            self._processor.id_to_piece(list(range(self._processor.get_piece_size())))
        except UnicodeDecodeError as error:
            raise ValueError("the SentencePiece model has a piece that is not UTF-8") from error
        begin = self._processor.bos_id()
        self._model = model
        self.vocab_size: int = self._processor.get_piece_size()
        if self.vocab_size > MAX_VOCABULARY:
            raise ValueError(f"the SentencePiece model has {self.vocab_size} ids, more than {MAX_VOCABULARY}")
        self.end_id: int = self._processor.eos_id()
        self.start_id: int = self.end_id if begin == _ABSENT else begin
        self.digest = hashlib.sha256(b"sentencepiece\n" + model).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The pieces of the text; control pieces are never produced from text."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The pieces of each text and the end id, on all cores."""
        return [[*ids, self.end_id] for ids in self._processor.encode(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the pieces, without begin and end."""
        text: str = self._processor.decode([int(i) for i in ids if i not in (self.start_id, self.end_id)])
        return text

    def token_bytes(self) -> np.ndarray:
        """``[vocab_size]`` int64; UTF-8 bytes of text that each id stands for, see ``Tokenizer``."""
        model = self._processor
        return np.array([self._bytes_of(token) for token in range(model.get_piece_size())], np.int64)

    def _bytes_of(self, token: int) -> int:
        if self._processor.is_control(token) or token in (self.start_id, self.end_id):
            return 0
        # An unknown piece stands for a character at least.
        if self._processor.is_byte(token) or self._processor.is_unknown(token):
            return 1
        return len(self._processor.id_to_piece(token).replace("\u2581", " ").encode())

    def gaps(self) -> list[int]:
        """None."""
        return []

    def save(self, directory: Path) -> None:
        """Writes the model file unchanged."""
        TokenizerMeta(self.kind, self.start_id, self.end_id).write(directory)
        replace_file(directory / _MODEL_FILE, self._model)

    @classmethod
    def load(cls, directory: Path) -> SentencePieceTokenizer:
        """Opens what ``save`` wrote."""
        return cls((directory / _MODEL_FILE).read_bytes())
