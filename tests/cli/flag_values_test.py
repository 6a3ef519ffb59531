"""Every flag of every command, with whatever a user may write behind it: one line, nothing left behind."""

import argparse
from importlib import import_module

import pytest

from sparsejax.cli.flags import FlagParser
from sparsejax.cli.main import COMMANDS, main

# What makes a command come far enough to look at its flags, and fail at an input that is not there.
GIVEN = {
    "train": ["--config=none.py", "--workdir=run"],
    "tokenize": ["--config=none.py", "--out=set"],
    "evaluate": ["--workdir=none"],
    "generate": ["--workdir=none"],
    "harness": ["--workdir=none", "--tasks=a"],
    "export": ["--workdir=none", "--out=out"],
    "check": ["--config=none.py", "--hardware=v5e:2x2"],
    "sweep": ["--config=none.py", "--workdir=sweep"],
    "branch": ["--workdir=none"],
    "average": ["--runs=none,nothing", "--out=out"],
    "fit": ["--rows=none", "--out=out"],
    "advise": ["--unique-tokens=1e9", "--flops=1e20", "--fit=none"],
    "compare": ["--runs=none"],
}
VALUES = [
    "--",
    "",
    "nan",
    "inf",
    "-1",
    "1e99",
    "9" * 5000,
    "99999999999999999999",
    "a\nb",
    "~",
    "\udcff",
    "1_0",
    "x" * 300,
]


class Captured(Exception):
    pass


def parser_of(command: str) -> argparse.ArgumentParser:
    found = []
    original = FlagParser.parse_known_args

    def capture(self, args=None, namespace=None):
        found.append(self)
        raise Captured

    FlagParser.parse_known_args = capture
    try:
        import_module(f"sparsejax.cli.{command}").main([])
    except Captured:
        return found[0]
    finally:
        FlagParser.parse_known_args = original
    raise AssertionError(command)


CASES = [(command, flag) for command in COMMANDS for a in parser_of(command)._actions for flag in a.option_strings[-1:]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys, words):
    code = main(words)
    said = capsys.readouterr().err
    assert code in (2, 74), (words, code)
    assert said.count("\n") == 1 and said[:-1].isprintable() and len(said) < 5000, (words, said)
    return said


@pytest.mark.parametrize(("command", "flag"), CASES, ids=str)
def test_every_value_of_every_flag_is_answered_in_one_line(command, flag, capsys, elsewhere):
    if flag == "--help":
        return
    for value in VALUES:
        for words in ([f"{flag}={value}"], [flag, value], [flag, value, f"{flag}={value}"]):
            answer(capsys, [command, *GIVEN[command], *words])
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_name_their_flag(command, capsys):
    for action in parser_of(command)._actions:
        flag = action.option_strings[-1]
        if action.type in (int, float):
            for value in ("nan", "inf", "-inf", "9" * 5000, "9" * 4000, ""):
                assert flag in answer(capsys, [command, *GIVEN[command], f"{flag}={value}"])


@pytest.mark.parametrize("command", COMMANDS)
def test_words_that_are_no_flags(command, capsys, elsewhere):
    for words in (["stray"], ["--"], ["--", "x"], ["--nothing"], ["-x"], ["--config.a", "--config.b=1"], [""], ["\n"]):
        answer(capsys, [command, *GIVEN[command], *words])
    assert list(elsewhere.iterdir()) == []
