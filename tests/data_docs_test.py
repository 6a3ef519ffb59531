"""Every command of docs/DATA.md is one the command line takes, and its settings resolve."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.cli.main import COMMANDS, main
from sparsejax.config import CHOICES, RunConfig
from sparsejax.data import tokenise

DATA = (Path(__file__).resolve().parents[1] / "docs" / "DATA.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", DATA, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").removeprefix("$ ").split("\n$ ")]


def parsed(line: str) -> tuple[dict[str, str], str, list[str]]:
    """Variables, command and arguments of a line."""
    words = shlex.split(line.replace("$SLURM_PROCID", "1").replace("$SLURM_NTASKS", "2"))
    variables = {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    program, command, *arguments = words
    assert program == "sparsejax" and command in COMMANDS, line
    return variables, command, arguments


def resolved(line: str, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The settings of a line, its other flags checked by the command itself."""
    variables, command, arguments = parsed(line)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if command == "tokenize":
        seen = []
        monkeypatch.setattr(tokenise, "tokenise", lambda data, out, **flags: seen.append((data, out, flags)))
        assert main([command, *arguments]) == 0
        assert seen[0][1] and seen[0][2]["process_id"] < seen[0][2]["num_processes"]
    (config,) = (argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config="))
    assert {argument.partition("=")[0] for argument in arguments if not argument.startswith("--config")} <= {
        "--workdir",
        "--out",
        "--shards",
        "--process_id",
        "--num_processes",
    }
    return load_run(config, [argument for argument in arguments if argument.startswith("--config.")])


def test_all_commands_are_found() -> None:
    assert len(LINES) == 9


@pytest.mark.parametrize("line", LINES)
def test_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = resolved(line, monkeypatch).data
    if parsed(line)[1] == "train":
        assert data.source == "tokens" and data.path and not data.tokenizer_path
    elif "c4" in line:
        assert data.tokenizer == "sentencepiece" and data.sequence_length == 256 and data.validation_path


def test_every_source_is_in_the_table() -> None:
    table = DATA.partition("## Where text")[2].partition("\n## ")[0]
    assert [source for source in CHOICES["data.source"] if f"`{source}`" not in table] == []


def test_sizes_follow_from_each_other() -> None:
    bytes_per_token = 789_615_977 / 183_808_378
    text = 789_615_977 * 364_868_892 / 364_608
    assert round(bytes_per_token, 3) == 4.296 and round(text / 1e9, -1) == 790
    tokens = text / bytes_per_token
    assert round(tokens / 1e9) == 184 and round(2 * tokens / 1e9) == 368 and round(2 * tokens / 1024 / 1e6, -1) == 360
    assert round(200 * tokens / 1024 / 1e9) == 36 and round(200 * 326.8 / 1024) == 64
    assert round(text / 11e6 / 3600) == 20


def test_the_papers_budgets_fit_the_first_200_files() -> None:
    golden = Path(__file__).parent / "golden" / "papers"
    rows = [json.loads(path.read_text()) for path in golden.glob("*.json")]
    budgets = [row["data.unique_tokens"] for row in rows if "data.unique_tokens" in row]
    assert max(budgets) == 20_800_000_000 < 36e9
