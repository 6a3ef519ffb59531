"""Small corpora and tokenizers of every format.

``SPARSEJAX_TEST_DATA`` may name a folder of real samples (C4 in two layouts, the T5 tokenizer). Where it does, the
fixtures below hand out the real file; elsewhere one of the same layout is made, so every test always runs.
"""

import dataclasses
import io
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsejax.config import DataConfig
from sparsejax.data.tfrecord import masked_crc

WORDS = ("a block of weights", "the active blocks", "grow and drop", "Ünïcode, too", "tokens\tand\n\nlines")


def texts(count: int) -> list[str]:
    """Different little documents."""
    return [f"{number}: {WORDS[number % len(WORDS)]} {number * number}\n" * (1 + number % 4) for number in range(count)]


def real_sample(name: str) -> Path | None:
    """A file of the folder of real samples, if there is such a folder and file."""
    folder = os.environ.get("SPARSEJAX_TEST_DATA", "")
    path = Path(folder, name)
    return path if folder and path.exists() else None


def new_bucket() -> str:
    """URI of an empty directory in a bucket.

    The bucket is in this process's memory, unless CLOUD_STORAGE_EMULATOR_ENDPOINT names an emulator of Google Cloud
    Storage with the bucket `sparsejax`: then all tests of buckets speak its protocol.
    """
    name = f"{uuid.uuid4().hex}/c4"
    if "CLOUD_STORAGE_EMULATOR_ENDPOINT" in os.environ:
        return f"gs://anonymous@sparsejax/{name}"
    return f"fsspec+memory://{name}"


def proto_field(number: int, value: bytes) -> bytes:
    """One length-delimited protocol buffer field shorter than 16,384 bytes."""
    length = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 0x7F | 0x80, len(value) >> 7])
    return bytes([number << 3 | 2]) + length + value


def example(**features: bytes) -> bytes:
    """A serialised ``tf.train.Example`` of bytes features."""
    entries = b""
    for name, value in features.items():
        feature = proto_field(1, proto_field(1, value))
        entries += proto_field(1, proto_field(1, name.encode()) + proto_field(2, feature))
    return proto_field(1, entries)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files were older than a tick of their clock, so that their digests are remembered."""
    monkeypatch.setattr("sparsejax.data.cache._SETTLED_NS", -(10**18))


@pytest.fixture
def c4_array_record(tmp_path: Path) -> str:
    """Pattern of C4 documents as TensorFlow Datasets writes them."""
    real = real_sample("c4-sample/tfds-layout")
    if real is not None:
        return f"{real}/*.array_record*"
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(2):
        writer = ArrayRecordWriter(f"{tmp_path}/c4-validation.array_record-0000{shard}-of-00002", "group_size:1")
        for text in texts(200)[100 * shard : 100 * (shard + 1)]:
            writer.write(example(url=b"https://example.org", text=text.encode(), timestamp=b"2019"))
        writer.close()
    return f"{tmp_path}/*.array_record*"


@pytest.fixture
def c4_tfrecord(tmp_path: Path) -> str:
    """Pattern of the same documents as TensorFlow Datasets wrote them before there was ArrayRecord."""
    real = real_sample("c4-sample/tfds-layout")
    if real is not None:
        return f"{real}/*.tfrecord*"
    for shard in range(2):
        with open(f"{tmp_path}/c4-validation.tfrecord-0000{shard}-of-00002", "wb") as file:
            for text in texts(200)[100 * shard : 100 * (shard + 1)]:
                record = example(url=b"https://example.org", text=text.encode(), timestamp=b"2019")
                length = struct.pack("<Q", len(record))
                for part in (length, record):
                    file.write(part + struct.pack("<I", masked_crc(part)))
    return f"{tmp_path}/*.tfrecord*"


@pytest.fixture
def c4_parquet(tmp_path: Path) -> str:
    """Pattern of C4 documents in Parquet files with one string column, ``text``."""
    real = real_sample("c4-sample/hf-layout")
    if real is not None:
        return f"{real}/*.parquet"
    import pyarrow
    import pyarrow.parquet

    for shard in range(2):
        table = pyarrow.table({"text": texts(200)[100 * shard : 100 * (shard + 1)]})
        pyarrow.parquet.write_table(table, tmp_path / f"c4-{shard}.parquet")
    return f"{tmp_path}/*.parquet"


@pytest.fixture(scope="session")
def t5_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece unigram model with pad 0, eos 1, unk 2 and no bos."""
    real = real_sample("tokenizers/t5-base.spiece.model")
    if real is not None:
        return real
    path = tmp_path_factory.mktemp("t5") / "spiece.model"
    path.write_bytes(trained_sentencepiece(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, model_type="unigram"))
    return path


@pytest.fixture(scope="session")
def llama_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece BPE model with unk 0, bos 1, eos 2, byte fallback and no normalisation."""
    real = real_sample("tokenizers/mistral-v1-32k.model")
    if real is not None:
        return real
    path = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    path.write_bytes(
        trained_sentencepiece(
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
        )
    )
    return path


def trained_sentencepiece(**options: object) -> bytes:
    """A tiny SentencePiece model."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts(200)),
        model_writer=model,
        vocab_size=330,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.fixture
def text_corpus(tmp_path: Path) -> Path:
    """120 little documents as JSON lines."""
    import json

    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(120)))
    return path


@pytest.fixture
def data_config(text_corpus: Path, tmp_path: Path) -> Callable[..., DataConfig]:
    """A configuration of the little corpus with bytes as tokens; keyword arguments replace fields."""
    base = DataConfig(
        source="jsonl",
        path=str(text_corpus),
        validation_path="",
        validation_fraction=0.2,
        text_field="text",
        tokenizer="byte",
        tokenizer_path="",
        vocab_size=0,
        sequence_length=16,
        unique_tokens=0,
        reshuffle_each_epoch=True,
        cache_dir=str(tmp_path / "cache"),
    )
    return lambda **fields: dataclasses.replace(base, **fields)
