"""What the card of a model says of a finished run, an unfinished one, a mean of runs, and each storage."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.quickstart import get_config
from sparsejax.cli.config_flag import load_run
from sparsejax.config import resolve
from sparsejax.interop.exported_model import ExportedModel
from sparsejax.interop.llama_config import read_config
from sparsejax.interop.model_card import model_card, train_config

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop" / "export"
FINISHED: dict[str, Any] = {
    "finished": True,
    "step": 12,
    "tokens": {"seen": 768, "unique": 320, "epochs": 2.4},
    "losses": {"train": 3.25, "validation": 3.5, "bits_per_byte": 5.05, "step": 12},
    "training_flops": {"executed": 1.5e9, "theoretical": 0.75e9},
    "device": "cpu x 1",
    "versions": {"jax": "0.10.2"},
}


def card(form: str = "hf", **changes: Any) -> str:
    facts = json.loads((GOLDEN / "sparsejax.json").read_text()) | changes
    model = ExportedModel(read_config(GOLDEN), facts, {}, lambda name: pytest.fail(name), {}, "float32")
    return model_card(model, form, "float32")


def test_a_finished_run() -> None:
    text = card(**FINISHED)
    _, head, body = text.split("---\n", 2)
    said = yaml.safe_load(head)
    assert said["library_name"] == "transformers" and said["pipeline_tag"] == "text-generation"
    assert {"sparsejax", "block-sparse", "static"} <= set(said["tags"])
    for part in (
        "| step | 12 of 12 (finished) |",
        "| tokens seen | 768 |",
        "| unique tokens | 320 |",
        "| epochs | 2.400 |",
        "| validation loss at step 12 (nats/token) | 3.5000 |",
        "| validation, bits per byte | 5.0500 |",
        "| mlp.up | 16x32 | 4x4 | 16 of 32 | 0.5000 | 512 |",
        "| mlp.down | 32x16 | - | all | 1.0000 | 1,024 |",
        "| whole training: executed | 1.5e+09 |",
        "trained with jax 0.10.2",
        "memory and the time of the dense model",
        "sparsejax train --config=train_config.py --workdir=runs/run",
    ):
        assert part in body, part


def test_an_unfinished_run_says_so_and_leaves_nothing_blank() -> None:
    text = card()
    assert "(not finished)" in text and "had not written its result" in text
    assert "| validation, bits per byte | unknown |" in text and "None" not in text


def test_a_mean_of_runs() -> None:
    text = card(**FINISHED | {"average_of": {"runs/a": 0.75, "runs/b": 0.25, "runs/c": 0.0}})
    assert "a mean of runs: 0.750 of runs/a, 0.250 of runs/b." in text and "runs/c" not in text
    assert "then `sparsejax average`" in text and "tokens seen by each run" in text


def test_other_storages_and_formats() -> None:
    assert "No licence is named" in card()
    assert "Monarch factors" in card(storage="monarch") and "stored as zeros, so" not in card(storage="monarch")
    assert "no N:M kernel" in card(storage="dense_master")
    packed = card("packed")
    assert "library_name: sparsejax" in packed and "PackedModel" in packed and "memory and the time" not in packed
    assert "the losses are of the last ones" in card(exported_weights="ema")


def test_the_configuration_file_gives_the_run_back(tmp_path: Path) -> None:
    run = resolve(get_config().to_dict())
    (tmp_path / "train_config.py").write_text(train_config({"name": 'a "quoted" \\ name', "config": run.to_dict()}))
    assert load_run(str(tmp_path / "train_config.py"), []) == run
    changed = load_run(str(tmp_path / "train_config.py"), ["--config.optim.lr=0.5"])
    assert dataclasses.replace(changed, optim=run.optim) == run and changed.optim.lr == 0.5
    ast.parse((tmp_path / "train_config.py").read_text())
