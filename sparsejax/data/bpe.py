"""A byte-level BPE trained on the corpus (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2), and cached."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.cache import CorruptEntryError, Notice, file_sha256, open_or_build
from sparsejax.data.document import Document, order_key
from sparsejax.data.splits import SplitCorpus
from sparsejax.data.tokenizer_json import JsonTokenizer
from sparsejax.data.tokenizer_meta import TokenizerMeta

END_TOKEN = "<|endoftext|>"
# 256 bytes and the end token.
_SMALLEST_VOCABULARY = 257
# Bytes of text a vocabulary is trained on; more changes few merges and costs seconds per 10 MB.
_TRAINING_BYTES = 16 * 2**20
_CHECKSUM_FILE = "sha256"
# Part of the name of an entry: raise it when training changes.
_FORMAT = "bpe 1"


def train_bpe(texts: Iterable[str], vocab_size: int) -> JsonTokenizer:
    """Trains a byte-level BPE: the same texts give the same tokenizer, bit for bit.

    Args:
      texts: the training texts.
      vocab_size: ids wanted, the end token (id 0) and the 256 bytes included; little text may give fewer.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    texts = list(texts)
    # Every merge makes the text shorter, so more ids cannot come of it; the library sets room aside for all it is told.
    most = _SMALLEST_VOCABULARY + sum(len(text.encode()) for text in texts)
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab_size, most),
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    end_id = backend.get_vocab()[END_TOKEN]
    return JsonTokenizer(backend.to_str().encode(), start_id=end_id, end_id=end_id)


def open_bpe(directory: Path, corpus: SplitCorpus, vocab_size: int, notice: Notice) -> JsonTokenizer:
    """The BPE of a corpus' training split, trained once for each content and vocabulary size.

    Args:
      directory: where trained tokenizers are cached.
      corpus: the corpus; only training documents are read.
      vocab_size: as for ``train_bpe``.
      notice: told when a tokenizer is trained or a corrupt one replaced.

    Raises:
      ConfigError: the vocabulary cannot hold the bytes, or the training split has no text.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ConfigError(
            f"data.vocab_size={vocab_size}: a byte-level BPE needs at least {_SMALLEST_VOCABULARY} (256 bytes and an "
            "end token); raise it, or set data.tokenizer=byte"
        )
    key = hashlib.sha256(f"{_FORMAT}\n{corpus.digest()}\n{vocab_size}".encode()).hexdigest()

    def write(entry: Path) -> None:
        notice(f"training a BPE of {vocab_size} tokens on the corpus (once, then cached)")
        texts = training_sample(corpus.train_documents(), _TRAINING_BYTES)
        if not texts:
            raise ConfigError(f"{corpus.where}: the training split has no text to train a tokenizer on")
        train_bpe(texts, vocab_size).save(entry)
        (entry / _CHECKSUM_FILE).write_text(_checksum(entry))
        corpus.check_unchanged()

    return open_or_build(directory / key[:32], _read, write, notice)


def training_sample(documents: Iterator[Document], limit: int) -> list[str]:
    """The first documents of the shuffled order that together have at most ``limit`` bytes (at least one document).

    Holds no more than that in memory whatever the size of the corpus, and is a fair sample of all of it.
    """
    # A heap with the latest document of the shuffled order on top: (-order key, bytes, text).
    kept: list[tuple[int, int, str]] = []
    total, cutoff = 0, 2**64
    for position, document in enumerate(documents):
        key = order_key(position)
        if key >= cutoff:
            continue
        size = len(document.text.encode())
        heapq.heappush(kept, (-key, size, document.text))
        total += size
        while total > limit and len(kept) > 1:
            negative_key, dropped, _ = heapq.heappop(kept)
            total -= dropped
            cutoff = -negative_key
    return [text for _, _, text in sorted(kept, reverse=True)]


def _read(entry: Path) -> JsonTokenizer:
    if (entry / _CHECKSUM_FILE).read_bytes() != _checksum(entry).encode():
        raise CorruptEntryError("its checksum differs")
    try:
        return JsonTokenizer.load(entry, TokenizerMeta.read(entry))
    except ValueError as error:
        raise CorruptEntryError(str(error)) from error


def _checksum(entry: Path) -> str:
    return "\n".join(file_sha256(path) for path in sorted(entry.glob("*.json")))
