"""The text that models are evaluated on, as documents of tokens, and the rows in which a model reads it.

Legend: D documents, N tokens, R rows, B rows of a batch, L tokens of a row.

A text is a concatenation of documents, each with its end token, as in a token file. What a token's loss is conditioned
on is decided by the *context*:

- ``"rows"``: the concatenation is cut into rows of L tokens, as training and its validation loss cut it. A row begins
  with the start token; what a token sees of its row may belong to the document before. So the mean over the run's
  validation text is the validation loss of the run.
- ``"documents"``: every document begins with the start token and is cut by itself into windows of L tokens, each of
  which begins with the start token. Nothing of another document is seen.

In either, each token is predicted once, and the first token of a row or window is predicted from the start token alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from sparsejax.data.pipeline import IGNORED, Corpus
from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.data.tokenizer import Tokenizer

Context = Literal["rows", "documents"]
CONTEXTS: tuple[str, ...] = get_args(Context)

# Tokens looked at, and characters encoded, at a time: ids are never in memory as Python numbers all at once.
_CHUNK = 1 << 22
_ENCODED = 1 << 18


@dataclasses.dataclass(frozen=True, eq=False)
class EvalText:
    """Documents of one source, tokenised.

    Attributes:
      name: what the reports call it.
      ids: ``[N]`` or more; the documents one after the other, each with its end token.
      ends: ``[D]`` int64, the place behind the last token of each document.
      bytes: ``[D]`` float64, UTF-8 bytes of each document, as far as it is evaluated.
      complete: ``[D]`` bool; False for a last document that was cut by a limit.
      digest: equal where the documents are the same ones in the same order, whatever the tokenizer.
    """

    name: str
    ids: np.ndarray | ShardedIds
    ends: np.ndarray
    bytes: np.ndarray
    complete: np.ndarray
    digest: str

    @property
    def tokens(self) -> int:
        """N."""
        return int(self.ends[-1])


def validation_text(corpus: Corpus, max_tokens: int) -> EvalText:
    """The first ``max_tokens`` tokens of the validation split; 0 takes all.

    Documents end where the end id stands. Their bytes are those of the decoded text, scaled by one factor so that
    they sum to the bytes that these tokens stand for (``text_bytes``): 1 where the tokenizer gives text back unchanged.
    So bits a byte are those that training logs.
    """
    split, tokenizer = corpus.validation, corpus.tokenizer
    tokens = min(max_tokens or split.tokens, split.tokens)
    found = [
        start + np.flatnonzero(split.ids[start : min(start + _CHUNK, tokens)] == tokenizer.end_id) + 1
        for start in range(0, tokens, _CHUNK)
    ]
    ends = np.concatenate(found).astype(np.int64)
    complete = np.ones(len(ends), bool)
    if not len(ends) or ends[-1] < tokens:
        ends, complete = np.append(ends, tokens), np.append(complete, False)
    starts = np.concatenate([[0], ends[:-1]])
    decoded = np.array(
        [
            len(tokenizer.decode(split.ids[a:b].tolist()).encode())
            for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ],
        np.float64,
    )
    scale = corpus.validation_bytes.between(0, tokens) / max(decoded.sum(), 1.0)
    return EvalText(split.split, split.ids, ends, decoded * scale, complete, corpus.data_digest)


def tokenised(name: str, texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> EvalText:
    """The documents ``texts`` up to ``max_tokens`` tokens; 0 takes all. The last one may be cut.

    Args:
      name: of the source.
      texts: at least one document, none empty.
      tokenizer: of the model.
      max_tokens: limit, in tokens of this tokenizer.
    """
    pieces: list[np.ndarray] = []
    lengths: list[int] = []
    total = 0
    for ids in _encoded(texts, tokenizer):
        pieces.append(np.asarray(ids, np.uint32))
        lengths.append(len(ids))
        total += len(ids)
        if max_tokens and total >= max_tokens:
            break
    tokens = min(max_tokens or total, total)
    ends = np.cumsum(lengths, dtype=np.int64)
    complete = ends <= tokens
    ends[-1] = tokens
    sizes = np.array([len(text.encode()) for text in texts[: len(ends)]], np.float64)
    if not complete[-1]:
        sizes_V, kept = tokenizer.token_bytes(), lengths[-1] - (total - tokens)
        sizes[-1] *= sizes_V[pieces[-1][:kept]].sum() / max(sizes_V[pieces[-1]].sum(), 1)
    return EvalText(name, np.concatenate(pieces)[:tokens], ends, sizes, complete, digest_of(texts))


def _encoded(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The ids of each text; not many more are encoded than the caller takes."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        if (size := size + len(text)) >= _ENCODED:
            yield from tokenizer.encode_documents(batch)
            batch, size = [], 0
    if batch:
        yield from tokenizer.encode_documents(batch)


def digest_of(texts: Iterable[str]) -> str:
    """Hexadecimal sha256 of some documents in their order."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def cut(text: EvalText, length: int, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """First token and number of tokens of every row, ``[R]`` int64 each; see the module for ``context``."""
    if context == "rows":
        first = np.arange(0, text.tokens, length, dtype=np.int64)
        return first, np.minimum(length, text.tokens - first)
    starts = np.concatenate([[0], text.ends[:-1]])
    windows = -(-(text.ends - starts) // length)
    document = np.repeat(np.arange(len(starts)), windows)
    within = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
    first = starts[document] + length * within
    return first, np.minimum(length, text.ends[document] - first)


def eval_batches(
    text: EvalText, length: int, batch_size: int, context: Context
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every token of a text once, in its order.

    Yields:
      targets int32 ``[B, L]``, -1 where there is none, and the number of the document of each, -1 where none.
    """
    first, count = cut(text, length, context)
    for start in range(0, len(first), batch_size):
        target_BL = np.full((batch_size, length), IGNORED, np.int32)
        document_BL = np.full((batch_size, length), -1, np.int64)
        for row, (a, n) in enumerate(
            zip(first[start : start + batch_size].tolist(), count[start : start + batch_size].tolist(), strict=True)
        ):
            target_BL[row, :n] = text.ids[a : a + n]
            document_BL[row, :n] = np.searchsorted(text.ends, np.arange(a, a + n), side="right")
        yield target_BL, document_BL
