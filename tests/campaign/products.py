"""One tiny sample of everything the product writes or reads, made by its own commands."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from array_record.python.array_record_module import ArrayRecordWriter

from sparsejax.data.tfrecord import masked_crc
from tests.campaign.oracle import Player
from tests.data.conftest import example
from tests.training.tiny import WORDS, write_text

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "base.py"
SETTINGS = {
    "model.size": "tiny",
    "model.hidden": "16",
    "model.mlp": "32",
    "model.heads": "2",
    "model.kv_heads": "2",
    "model.head_dim": "8",
    "model.layers": "1",
    "model.compute_dtype": "float32",
    "topology.density": "0.5",
    "topology.block": "4,4",
    "topology.every": "2",
    "data.tokenizer": "bpe",
    "data.vocab_size": "300",
    "data.sequence_length": "16",
    "train.steps": "4",
    "train.batch_size": "4",
    "train.log_every": "1",
    "train.eval_every": "2",
    "train.eval_tokens": "128",
    "train.checkpoint_every": "2",
    "train.keep_last": "3",
    "optim.ema_decay": "0.5",
    "mesh.fsdp": "1",
}


def flags(**changes: Any) -> list[str]:
    """``--config.section.key=value`` of a tiny run; ``changes`` are ``section_key=value`` with the first '_' a dot."""
    changed = {name.replace("_", ".", 1): str(value) for name, value in changes.items()}
    return [f"--config.{name}={value}" for name, value in (SETTINGS | changed).items()]


def train(workdir: Path, **changes: Any) -> list[str]:
    """The command that trains a tiny run."""
    return ["train", f"--config={CONFIG}", f"--workdir={workdir}", *flags(**changes)]


def write_documents(folder: Path, validation: Path) -> dict[str, dict[str, str]]:
    """The same documents in every format; returns the settings that read each. ``validation``: a text file."""
    draw = random.Random(5)
    texts = [" ".join(draw.choices(WORDS, k=12)) + f" {number}" for number in range(120)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    packers = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    packers[".zst"] = lambda data: pyarrow.compress(data, codec="zstd", asbytes=True)
    read = {}
    for suffix, pack in packers.items():
        (folder / f"a.jsonl{suffix}").write_bytes(pack(lines))
        read[f"a.jsonl{suffix}"] = {"data_source": "jsonl"}
    # A text file is one document, so what validates is another.
    (folder / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    read["a.txt"] = {"data_source": "text", "data_validation_path": str(validation)}
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "a.parquet")
    read["a.parquet"] = {"data_source": "parquet"}
    records = [example(text=text.encode()) for text in texts]
    writer = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    read["a.array_record"] = {"data_source": "arrayrecord"}
    (folder / "a.tfrecord").write_bytes(b"".join(map(framed, records)))
    read["a.tfrecord"] = {"data_source": "tfrecord"}
    return read


def framed(record: bytes) -> bytes:
    """A record as TFRecord files hold it: length, check, data, check."""
    length = len(record).to_bytes(8, "little")
    return b"".join(part + masked_crc(part).to_bytes(4, "little") for part in (length, record))


class Products:
    """The samples, below one folder; each attribute is a path or settings that read it."""

    def __init__(self, folder: Path, player: Player) -> None:
        """Make them all; any command that fails fails here."""
        self.folder, self._player = folder, player
        self.text, self.validation = write_text(folder / "text.txt"), folder / "validation.txt"
        write_text(self.validation, seed=1, lines=30)
        self.corpora = folder / "corpora"
        self.corpora.mkdir()
        self.formats = write_documents(self.corpora, self.validation)
        self.cache = folder / "cache"
        self.read = {"data_source": "text", "data_path": self.text, "data_validation_path": self.validation}
        self.read["data_cache_dir"] = self.cache
        self.run = folder / "run"
        self._make(train(self.run, **self.read))
        self.set = folder / "set"
        self._make(
            [
                "tokenize",
                f"--config={CONFIG}",
                f"--out={self.set}",
                "--shards=2",
                *flags(**self.read, data_tokenizer="byte"),
            ]
        )
        self.exports = {name: folder / name for name in ("hf", "packed")}
        for name, out in self.exports.items():
            self._make(["export", f"--workdir={self.run}", f"--out={out}", f"--format={name}"])

    def _make(self, argv: list[str]) -> None:
        played = self._player.play(argv)
        assert played.code == 0, f"{' '.join(argv)}\n{played.printed}"

    def copy(self, of: Path, name: str) -> Path:
        """A copy that a case may damage, in place of the one before."""
        target = self.folder / "cases" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(of, target)
        return target

    def place(self, name: str) -> Path:
        """A path where nothing is."""
        target = self.folder / "cases" / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        return target
