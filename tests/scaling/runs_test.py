"""The row of a finished run: written whole, read strictly."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sparsejax.scaling import runs

RESULT = runs.RunResult(
    schema=runs.SCHEMA,
    name="a",
    size="60m",
    total_parameters=58_073_600,
    active_parameters=39_000_000,
    non_embedding_parameters=6_232_000,
    mean_active_parameters=39_000_000.0,
    unique_tokens=1_000_192,
    total_tokens=4_000_768,
    epochs=4.0,
    density=0.25,
    block=(16, 32),
    method="smet",
    batch_size=64,
    sequence_length=256,
    steps=244,
    peak_lr=2e-3,
    schedule="cosine",
    decay_finished=True,
    seed_init=0,
    seed_topology=1,
    seed_data=2,
    started_from="",
    data_digest="a" * 64,
    tokenizer_digest="b" * 64,
    train_loss=3.5,
    validation_loss=3.75,
    bits_per_byte=1.5,
    loss_spike=0.0,
    seconds=12.5,
    executed_flops=1e15,
    theoretical_flops=4e14,
    device="cpu x 1",
    versions={"python": "3.11.7", "jax": "0.10.2"},
    git_commits="c" * 40,
)


def changed(path: Path, **values: Any) -> Path:
    """A result file in which the given keys are replaced, or removed where the value is ``...``."""
    row = {**json.loads(json.dumps(dataclasses.asdict(RESULT))), **values}
    path.write_text(json.dumps({key: value for key, value in row.items() if value is not ...}))
    return path


def test_a_row_survives_the_file(tmp_path: Path) -> None:
    runs.write(RESULT, tmp_path / "result.json")
    assert runs.read(tmp_path / "result.json") == RESULT
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_every_field_is_documented_with_its_meaning() -> None:
    text = runs.RunResult.__doc__ or ""
    documented = [line.strip().split(":")[0] for line in text.splitlines() if line.startswith("      ")]
    assert documented == [field.name for field in dataclasses.fields(runs.RunResult)]


def test_a_failed_write_leaves_the_old_row(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    runs.write(RESULT, path)
    with pytest.raises(ValueError, match="JSON compliant"):
        runs.write(dataclasses.replace(RESULT, validation_loss=float("nan")), path)
    assert runs.read(path) == RESULT


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema": 1}, "schema 1 is not 2"),
        ({"schema": ...}, "schema none is not 2"),
        ({"epochs": ..., "steps": ...}, "missing epochs, steps"),
        ({"accuracy": 1.0}, "unknown accuracy"),
        ({"density": "0.25"}, "density='0.25' is not of type float"),
        ({"steps": 2.5}, "steps=2.5 is not of type int"),
        ({"steps": True}, "steps=True is not of type int"),
        ({"block": [16]}, "block=[16] is not of type tuple"),
        ({"block": 16}, "block=16 is not of type tuple"),
        ({"versions": {"jax": 1}}, "versions={'jax': 1} is not of type dict"),
        ({"validation_loss": float("inf")}, "validation_loss=inf is not of type float"),
    ],
)
def test_other_rows_are_refused_in_one_line(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = changed(tmp_path / "result.json", **values)
    with pytest.raises(ValueError) as caught:
        runs.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1'])
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json: not a result") as caught:
        runs.read(tmp_path / "result.json")
    assert "\n" not in str(caught.value)


def test_a_whole_number_may_stand_for_a_float(tmp_path: Path) -> None:
    assert runs.read(changed(tmp_path / "result.json", seconds=12)).seconds == 12.0
