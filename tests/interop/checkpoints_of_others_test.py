"""Folders that hold something else, or a checkpoint with a defect, given to every command: one line, no traceback."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.interop.dense_checkpoint import open_checkpoint
from sparsejax.interop.open_model import open_model
from sparsejax.training.restore import restore_run
from tests.interop.hub import TOKENS, write_hub, write_tokenizer
from tests.interop.tiny import shard
from tests.interop.untrained import write_run

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop" / "export"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of the hub."""
    directory = tmp_path_factory.mktemp("hub") / "whole"
    write_hub(directory)
    return directory


def changed_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def changed_tensor(value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def only(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()

    return change


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new)  # type: ignore[return-value]


def without_a_shard(folder: Path) -> None:
    shard(folder, load_file(folder / "model.safetensors"), 2)
    (folder / "model-00002-of-00002.safetensors").unlink()


def without_its_index(folder: Path) -> None:
    shard(folder, load_file(folder / "model.safetensors"), 2)
    (folder / "model.safetensors.index.json").unlink()


def without_all_shards(folder: Path) -> None:
    shard(folder, load_file(folder / "model.safetensors"), 1)
    (folder / "model-00001-of-00001.safetensors").unlink()


def an_export(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN, folder)


# What is wrong -> how it is made, what a command says that wants a run, and one that wants a model ("": it opens).
NO_RUN = "is a checkpoint of the hub (model_type=llama), which"
DEFECTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "whole": (lambda folder: None, NO_RUN, ""),
    "an export": (an_export, "is an export, which", ""),
    "PyTorch's file": (
        renamed("model.safetensors", "pytorch_model.bin"),
        "with pytorch_model.bin and no safetensors; save it again",
        "with pytorch_model.bin and no safetensors; save it again",
    ),
    "a shard is missing": (without_a_shard, NO_RUN, "lacks the shards model-00002-of-00002.safetensors"),
    "all shards are missing": (without_all_shards, "without its weights", "lacks the shards model-00001-of-00001"),
    "the index is missing": (without_its_index, NO_RUN, "but neither model.safetensors nor model.safetensors.index"),
    "weights alone": (only("model.safetensors"), "holds the weights model.safetensors and no config", "no config.json"),
    "a tokenizer alone": (only("tokenizer.json"), "is the folder of a tokenizer", "is the folder of a tokenizer"),
    "empty": (only(), "is empty", "is empty"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), NO_RUN, "has no tokenizer"),
    "a tokenizer too large": (
        lambda folder: write_tokenizer(folder, extra=["<pad>", "<mask>"]),
        NO_RUN,
        f"its tokenizer has {TOKENS + 2} tokens, its embedding {TOKENS}",
    ),
    "not a number": (changed_tensor(np.nan), NO_RUN, "has 1 of 384 values that are not finite numbers"),
    "infinite": (changed_tensor(-np.inf), NO_RUN, "has 1 of 384 values that are not finite numbers"),
    "another architecture": (changed_json("config.json", model_type="gpt2"), "(model_type=gpt2)", "another architect"),
    "odd sizes": (changed_json("config.json", hidden_size="16"), NO_RUN, "at `$.hidden_size`"),
    "odd ends": (changed_json("config.json", eos_token_id={"a": 1}), NO_RUN, "at `$.eos_token_id`"),
    "an adapter": (renamed("config.json", "adapter_config.json"), "is an adapter of the hub (LoRA)", "no config.json"),
    "not JSON": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff{"),
        "is not UTF-8: byte 0xff",
        "is not UTF-8: byte 0xff",
    ),
}
WANT_RUNS = {
    "evaluate": ["--workdir={}"],
    "compare": ["--runs={}"],
    "average": ["--runs={},{}-2", "--out=new"],
    "branch": ["--workdir={}"],
    "export": ["--workdir={}", "--out=new"],
}
WANT_MODELS = {"generate": ["--workdir={}", "--tokens=1"], "harness": ["--workdir={}", "--tasks=a", "--out=new"]}


def refused(capsys: pytest.CaptureFixture, command: str, flags: list[str], folder: Path) -> str:
    code = main([command, *(flag.format(folder, folder) for flag in flags)])
    printed = capsys.readouterr().err
    assert code == 2 and printed.count("\n") == 1 and printed.startswith("sparsejax: "), printed
    assert "version of sparsejax" not in printed
    return printed


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_command_says_what_it_was_given(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, defect: str
) -> None:
    make, as_run, as_model = DEFECTS[defect]
    folder = tmp_path / "folder"
    shutil.copytree(whole, folder)
    make(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparsejax.interop.harness.require_package", lambda: None)
    before = sorted(tmp_path.rglob("*"))
    for command, flags in WANT_RUNS.items() if as_run else ():
        if command != "export" or defect != "an export":
            assert as_run in refused(capsys, command, flags, folder), command
    for command, flags in WANT_MODELS.items() if as_model else ():
        assert as_model in refused(capsys, command, flags, folder), command
    # A run that starts from it takes a tokenizer of its own.
    if as_model and "tokenizer" not in defect:
        with pytest.raises(ConfigError) as caught:
            open_checkpoint(str(folder), print).params(vocab_size=TOKENS, mlp=24)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_whose_weights_are_not_finite_writes_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir, _ = write_run(tmp_path)
    trained = restore_run(workdir, print)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.nan, trained.state.params)
    broken = dataclasses.replace(trained, state=dataclasses.replace(trained.state, params=params))
    monkeypatch.setattr("sparsejax.interop.open_model.restore_run", lambda *_: broken)
    with pytest.raises(ConfigError, match="values that are not finite numbers; the run diverged"):
        open_model(workdir, print)


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        (256, None, (256,)),
        ([256, 65], None, (256, 65)),
        (65, [66, 65, 256], (256, 65, 66)),
        (None, 66, (256, 66)),
        ([], None, (256,)),
    ],
)
def test_all_ids_that_end_a_text_are_known(tmp_path: Path, config: Any, generation: Any, ends: tuple[int, ...]) -> None:
    write_hub(tmp_path, eos_token_id=config)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert open_model(tmp_path, print).end_ids == ends


def test_rows_past_the_tokenizer_are_never_drawn(tmp_path: Path) -> None:
    write_hub(tmp_path, rows=320)
    engine = open_model(tmp_path, print).engine(jax.devices()[:1])
    assert engine.absent == ((257, 320),) and engine.vocab_size == 320
