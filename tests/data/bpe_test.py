"""The BPE trained on the corpus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import open_bpe, train_bpe, training_sample
from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document, order_key
from sparsejax.data.splits import split_corpus
from tests.data.conftest import texts


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert train_bpe(texts(80), 400).digest == train_bpe(texts(80), 400).digest


def test_another_process_trains_the_same_tokenizer() -> None:
    # Hash tables are seeded per process, so this is where an order that leaks from one would show.
    program = (
        "from sparsejax.data.bpe import train_bpe; from tests.data.conftest import texts;"
        "print(train_bpe(texts(80), 400).digest)"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == train_bpe(texts(80), 400).digest
    assert done.stderr == ""


def test_frequent_strings_become_tokens() -> None:
    # "ab" is merged first, then "abab": 256 bytes, the end token and two merges.
    tokenizer = train_bpe(["abababab"] * 10, 259)
    assert tokenizer.vocab_size == 259
    assert len(tokenizer.encode("abab")) == 1 and len(tokenizer.encode("xyz")) == 3


def test_little_text_gives_a_smaller_vocabulary() -> None:
    assert train_bpe(["ab"], 4096).vocab_size == 258
    # The library would set room aside for all of these, and end the process.
    assert train_bpe(texts(20), 10**12).digest == train_bpe(texts(20), 4096).digest


def test_the_sample_is_the_head_of_the_shuffled_order() -> None:
    documents = [Document.of_text(text) for text in texts(60)]
    shuffled = [documents[i].text for i in sorted(range(60), key=order_key)]
    for limit in (0, 100, 1000, 10**6):
        sample = training_sample(iter(documents), limit)
        assert sample == shuffled[: len(sample)] and sample
        following = shuffled[len(sample) : len(sample) + 1]
        assert len(sample) == 1 or sum(len(text.encode()) for text in sample) <= limit
        assert sum(len(text.encode()) for text in sample + following) > limit or not following


def test_it_is_trained_once_and_only_on_training_documents(data_config, tmp_path: Path) -> None:
    said: list[str] = []
    corpus = split_corpus(data_config(), FileDigests(tmp_path / "digests"))
    first = open_bpe(tmp_path / "bpe", corpus, 300, said.append)
    assert open_bpe(tmp_path / "bpe", corpus, 300, said.append).digest == first.digest
    assert said == ["training a BPE of 300 tokens on the corpus (once, then cached)"]
    sample = training_sample(corpus.train_documents(), 10**6)
    assert first.digest == train_bpe(sample, 300).digest
    assert open_bpe(tmp_path / "bpe", corpus, 301, said.append).vocab_size == 301


def test_a_damaged_tokenizer_is_trained_again_and_said(data_config, tmp_path: Path) -> None:
    said: list[str] = []
    corpus = split_corpus(data_config(), FileDigests(tmp_path / "digests"))
    first = open_bpe(tmp_path / "bpe", corpus, 300, said.append)
    (file,) = (tmp_path / "bpe").glob("*/tokenizer.json")
    file.write_text(file.read_text().replace('"a"', '"b"', 1))
    assert open_bpe(tmp_path / "bpe", corpus, 300, said.append).digest == first.digest
    assert "is corrupt (its checksum differs)" in said[1]


def test_a_vocabulary_smaller_than_the_bytes_is_refused(data_config, tmp_path: Path) -> None:
    corpus = split_corpus(data_config(), FileDigests(tmp_path / "digests"))
    with pytest.raises(ConfigError, match=r"data.vocab_size=256: a byte-level BPE needs at least 257"):
        open_bpe(tmp_path / "bpe", corpus, 256, print)
