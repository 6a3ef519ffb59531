"""Bytes of any stretch of a split: counted for every tokenizer, and held against the text itself."""

import random

import numpy as np
import pytest

from sparsejax.data.bpe import train_bpe
from sparsejax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from sparsejax.data.text_bytes import TextBytes
from sparsejax.data.token_files import TokenFile, TokenMeta
from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer, open_tokenizer_file
from tests.data.conftest import texts

# Short ones of a letter, long ones, other alphabets, and text that SentencePiece changes.
DOCUMENTS = [*"abc", *texts(30), "x" * 500, "漢字 🎈 " * 20, "  two  spaces \n\n" * 9, "Ünï"]


@pytest.fixture(params=["byte", "bpe", "t5", "llama"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "byte":
        return ByteTokenizer()
    if request.param == "bpe":
        return train_bpe(texts(50), 300)
    return open_tokenizer_file("sentencepiece", str(request.getfixturevalue(f"{request.param}_model")))


def split_of(tokenizer: Tokenizer, documents: list[str]) -> tuple[TokenFile, np.ndarray, np.ndarray]:
    """The documents as a split, and where each ends in tokens and in bytes."""
    encoded = tokenizer.encode_documents(documents)
    ids = np.concatenate([np.asarray(each, np.uint16) for each in encoded])
    ends = np.cumsum([len(each) for each in encoded])
    sizes = np.cumsum([len(text.encode()) for text in documents])
    meta = TokenMeta(ids.size, int(sizes[-1]), len(documents), "<u2", "")
    return TokenFile(ids, meta, "validation"), ends, sizes


def test_stretches_of_documents_have_the_bytes_of_their_text(tokenizer: Tokenizer) -> None:
    exact = not isinstance(tokenizer, SentencePieceTokenizer)
    documents = DOCUMENTS if exact else texts(30)
    split, ends, sizes = split_of(tokenizer, documents)
    counted = TextBytes(split, tokenizer)
    draw = random.Random(0)
    for _ in range(50):
        first, last = sorted(draw.sample(range(-1, len(documents)), 2))
        start, before = (0, 0) if first < 0 else (int(ends[first]), int(sizes[first]))
        found, wanted = counted.between(start, int(ends[last])), int(sizes[last]) - before
        if exact:
            assert found == wanted
        else:
            # A space in front of every document, runs of spaces made one.
            assert found == pytest.approx(wanted, rel=0.1, abs=4 * (last - first))
    assert counted.between(0, split.tokens) == sizes[-1]


def test_stretches_add_up(tokenizer: Tokenizer) -> None:
    split, _, sizes = split_of(tokenizer, DOCUMENTS)
    counted = TextBytes(split, tokenizer)
    for cut in range(1, split.tokens, 37):
        assert counted.between(0, cut) + counted.between(cut, split.tokens) == pytest.approx(sizes[-1])
