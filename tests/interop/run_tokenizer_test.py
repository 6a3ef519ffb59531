"""The tokenizer in a run directory is that of the run, or every command that reads it says that it is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import train_bpe
from sparsejax.interop.dense_checkpoint import open_checkpoint
from sparsejax.interop.export import from_run
from sparsejax.interop.open_model import open_model
from sparsejax.training.evaluation import Settings, evaluate_runs
from sparsejax.training.restore import restore_run
from tests.data.conftest import texts
from tests.interop.untrained import write_run

SETTINGS = Settings(texts=(), text_field="text", validation=True, max_tokens=0, context="rows", weights="raw")
READERS: dict[str, Callable[[Path], object]] = {
    "restore": lambda workdir: restore_run(workdir, print),
    "generate, harness": lambda workdir: open_model(workdir, print),
    "init.from": lambda workdir: open_checkpoint(str(workdir), print),
    "export": lambda workdir: from_run(workdir, print),
    "evaluate": lambda workdir: evaluate_runs([workdir], SETTINGS, print),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a BPE whose ids can change places."""
    return write_run(tmp_path_factory.mktemp("run"), train_bpe(texts(50), 300))[0]


def _swap(folder: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(saved))


def _start(folder: Path) -> None:
    meta = json.loads((folder / "tokenizer_meta.json").read_text())
    (folder / "tokenizer_meta.json").write_text(json.dumps(meta | {"start_id": 97}))


CHANGES: dict[str, Callable[[Path], None]] = {
    "two ids": _swap,
    "the start token": _start,
    "another tokenizer": lambda folder: train_bpe(texts(60), 300).save(folder),
    "a byte": lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff"),
    "an empty file": lambda folder: (folder / "tokenizer_meta.json").write_bytes(b""),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", CHANGES)
def test_no_command_takes_another_tokenizer_for_the_run_s(change: str, reader: str, run: Path) -> None:
    folder = run / "tokenizer"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    CHANGES[change](folder)
    try:
        with pytest.raises(ConfigError) as error:
            READERS[reader](run)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
