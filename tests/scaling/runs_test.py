"""The row of a finished run: written whole, read strictly."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from sparsejax.config import ConfigError
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


def test_a_loss_that_is_no_number_survives_as_json(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    runs.write(dataclasses.replace(RESULT, validation_loss=float("nan"), loss_spike=float("inf")), path)
    found = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert found["validation_loss"] is None and found["not_finite"] == {"validation_loss": "nan", "loss_spike": "inf"}
    read = runs.read(path)
    assert math.isnan(read.validation_loss) and read.loss_spike == math.inf
    assert dataclasses.replace(read, validation_loss=3.75, loss_spike=0.0) == RESULT


# A field of every kind with values that it cannot have, and what the line names.
WRONG = [
    ({"schema": 1}, "schema 1 is not 2"),
    ({"schema": ...}, "schema none is not 2"),
    ({"epochs": ..., "steps": ...}, "missing epochs, steps"),
    ({"accuracy": 1.0}, "unknown accuracy"),
    ({"not_finite": 3}, "another value"),
    *(({"density": value}, "`$.density`") for value in ("0.25", None, [0.25], {}, True)),
    *(({"steps": value}, "`$.steps`") for value in (2.5, True, None, "2")),
    *(({"block": value}, "`$.block") for value in ([16], 16, [16, "x"], {"a": 1}, None)),
    *(({"versions": value}, "`$.versions") for value in ({"jax": 1}, [], "jax", None)),
    ({"total_parameters": 10**400}, "too large"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_other_rows_are_refused_in_one_line(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = changed(tmp_path / "result.json", **values)
    with pytest.raises(ConfigError) as caught:
        runs.read(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


NOT_JSON = [
    b"",
    b"{",
    b"[]",
    b'{"schema": 1',
    b"\xff",
    b"[" * 100_000,
    b'{"schema": NaN}',
    b'{"a": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("data", NOT_JSON)
def test_other_files_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "result.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"result\.json: ") as caught:
        runs.read(tmp_path / "result.json")
    assert "\n" not in str(caught.value)


def test_a_whole_number_may_stand_for_a_float(tmp_path: Path) -> None:
    assert runs.read(changed(tmp_path / "result.json", seconds=12)).seconds == 12.0
