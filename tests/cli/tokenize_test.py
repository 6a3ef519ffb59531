"""``sparsejax tokenize`` as a user calls it, and a run that trains from its set."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from sparsejax.cli.main import main

CONFIG = "--config=configs/quickstart.py"


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A corpus of two files with bytes as tokens."""
    for number in range(2):
        lines = [json.dumps({"text": f"{number} {place} a block of weights"}) + "\n" for place in range(50)]
        (tmp_path / f"{number}.jsonl").write_text("".join(lines))
    settings = {"source": "jsonl", "path": f"{tmp_path}/*.jsonl", "tokenizer": "byte", "cache_dir": tmp_path / "cache"}
    return [CONFIG, f"--out={tmp_path}/set", *(f"--config.data.{key}={value}" for key, value in settings.items())]


def test_two_processes_one_after_the_other(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    share = ["--num_processes=2", "--wait=0", "--shards=2"]
    assert main(["tokenize", *flags, *share, "--process_id=1"]) == 75
    assert "1 of 2 parts are still to come, from processes 0: run the same command again" in capsys.readouterr().err
    assert main(["tokenize", *flags, *share, "--process_id=0"]) == 0
    assert "this process has done its share; 1 shards of others are still to come" in capsys.readouterr().err
    assert main(["tokenize", *flags, *share, "--process_id=1"]) == 0
    printed = capsys.readouterr()
    assert "is finished: " in printed.err and "train tokens" in printed.err and not printed.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shards=0"], "shards are at least 1"),
        (["--shards=1000000000000"], "shards are at least 1 and at most 99999"),
        (["--wait=nan"], "--wait: nan cannot be used"),
        (["--out="], "--out is empty: name the directory"),
        (["--verify"], "--config: --verify takes --out alone"),
        (["--process_id=1"], "processes count from 0"),
        (["--config.data.path=/nowhere/*"], "data.path=/nowhere/*: no file matches"),
        (["--config.data.tokenizer=bpe"], "data.tokenizer=bpe: tokenize needs text, and a tokenizer"),
        (["--config.data.source=tokens"], "data.source=tokens: tokenize needs text"),
        (["--many"], "--many: unknown flag"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenize", *flags, *more]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("sparsejax: ") and printed.count("\n") == 1


def test_a_set_is_verified_without_its_config(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"--out={tmp_path}/set"
    assert main(["tokenize", "--verify", out]) == 2
    assert "is no finished token set" in capsys.readouterr().err
    assert main(["tokenize", *flags, "--shards=2"]) == 0
    capsys.readouterr()
    assert main(["tokenize", "--verify", out]) == 0
    assert "is what its manifest says: 3 shards, and their tokenizer" in capsys.readouterr().err
    assert main(["tokenize", out]) == 2
    assert "required: --config" in capsys.readouterr().err


def test_settings_of_a_set_that_contradict(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--config.data.source=tokens", "--config.data.validation_path=held.jsonl"]
    assert main(["tokenize", *flags, *wrong]) == 2
    assert "data.validation_path=held.jsonl: a token set has its" in capsys.readouterr().err


def test_training_from_a_damaged_set_ends_before_anything_compiles(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tokenize", *flags, "--shards=2"]) == 0
    (tmp_path / "set/shards/train-00001-of-00002.bin").unlink()
    capsys.readouterr()
    import_module("sparsejax.training.loop")  # some modules decorate with jit when they are imported
    monkeypatch.setattr("jax.jit", None)
    settings = {"source": "tokens", "path": tmp_path / "set", "tokenizer": "byte", "cache_dir": tmp_path / "cache"}
    data = [f"--config.data.{key}={value}" for key, value in settings.items()]
    assert main(["train", CONFIG, f"--workdir={tmp_path / 'run'}", *data]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sparsejax: ")]
    assert f"data.path={tmp_path}/set: shards/train-00001-of-00002.bin is missing in {tmp_path}/set; copy it" in line
