"""Documents in rows: where they end, how many bytes they have, and what a token is read in."""

import numpy as np

from sparsejax.data.pipeline import Corpus
from sparsejax.data.token_files import TokenFile, TokenMeta
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.training.eval_text import cut, digest_of, eval_batches, tokenised, validation_text

END = 256


def corpus(*texts, text_bytes=None):
    """A validation split of these documents, as a corpus of bytes has it."""
    tokenizer = ByteTokenizer()
    ids = np.concatenate([np.array(each, np.uint16) for each in tokenizer.encode_documents(texts)])
    size = sum(len(text.encode()) for text in texts) if text_bytes is None else text_bytes
    split = TokenFile(ids, TokenMeta(ids.size, size, len(texts), "<u2", ""), "validation")
    return Corpus(split, split, tokenizer, "d")


def test_documents_of_a_validation_split():
    # "abc" end, "ä" is two bytes, end, "de" end: 4 + 3 + 3 tokens.
    text = validation_text(corpus("abc", "ä", "de"), 0)
    assert text.name == "validation" and text.tokens == 10 and text.digest == "d"
    assert text.ends.tolist() == [4, 7, 10] and text.complete.all()
    assert text.bytes.tolist() == [3.0, 2.0, 2.0]


def test_a_limit_cuts_the_last_document():
    text = validation_text(corpus("abc", "ä", "de"), 6)
    assert text.ends.tolist() == [4, 6] and text.complete.tolist() == [True, False]
    assert text.bytes.tolist() == [3.0, 2.0]
    # Five tokens end within a character, whose first byte is one.
    assert validation_text(corpus("abc", "ä", "de"), 5).bytes.sum() == 4.0
    assert tokenised("t", ["abc", "ä", "de"], ByteTokenizer(), 5).bytes.tolist() == [3.0, 1.0]
    assert validation_text(corpus("abc", "ä"), 4).complete.tolist() == [True]


def test_bytes_sum_to_those_of_the_split_where_a_tokenizer_changes_the_text():
    assert validation_text(corpus("abc", "de", text_bytes=10), 0).bytes.tolist() == [6.0, 4.0]


def test_documents_of_a_text():
    tokenizer = ByteTokenizer()
    whole = tokenised("t", ["abc", "ä", "de"], tokenizer, 0)
    assert whole.ids.tolist() == [97, 98, 99, END, 195, 164, END, 100, 101, END]
    assert whole.ends.tolist() == [4, 7, 10] and whole.bytes.tolist() == [3, 2, 2] and whole.complete.all()
    cut_text = tokenised("t", ["abc", "ä", "de"], tokenizer, 6)
    assert cut_text.ids.tolist() == whole.ids.tolist()[:6]
    assert cut_text.ends.tolist() == [4, 6] and cut_text.complete.tolist() == [True, False]
    assert cut_text.bytes.tolist() == [3, 2]
    assert cut_text.digest == whole.digest == digest_of(["abc", "ä", "de"]) != digest_of(["abcä", "de"])


def test_rows_straddle_documents_and_windows_do_not():
    text = tokenised("t", ["abcde", "f", "ghij"], ByteTokenizer(), 0)  # 6 + 2 + 5 tokens
    first, count = cut(text, 4, "rows")
    assert first.tolist() == [0, 4, 8, 12] and count.tolist() == [4, 4, 4, 1]
    first, count = cut(text, 4, "documents")
    assert first.tolist() == [0, 4, 6, 8, 12] and count.tolist() == [4, 2, 2, 4, 1]


def test_batches_by_hand():
    # Rows of 4, two a batch; the last row has one token, and the last batch is filled up.
    text = tokenised("t", ["abcde", "f", "ghij"], ByteTokenizer(), 0)
    (target, document), (last, of_last) = eval_batches(text, 4, 2, "rows")
    assert target.tolist() == [[97, 98, 99, 100], [101, END, 102, END]] and target.dtype == np.int32
    assert document.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]
    assert last.tolist() == [[103, 104, 105, 106], [END, -1, -1, -1]]
    assert of_last.tolist() == [[2, 2, 2, 2], [2, -1, -1, -1]]
    windows = list(eval_batches(text, 4, 3, "documents"))
    assert windows[0][0].tolist() == [[97, 98, 99, 100], [101, END, -1, -1], [102, END, -1, -1]]
    assert windows[1][1].tolist() == [[2, 2, 2, 2], [2, -1, -1, -1], [-1] * 4]
