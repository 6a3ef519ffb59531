"""Every error that an input or a machine can cause is one printable line and an exit code, in every command."""

import errno
import os
import subprocess
import sys
from importlib import import_module

import jax
import pytest

from sparsejax.cli.main import COMMANDS, main
from sparsejax.config import ConfigError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/run/metrics.jsonl")


def followed(first: BaseException, second: BaseException) -> BaseException:
    second.__context__ = first
    return second


@pytest.mark.parametrize("command", ["train", "advise"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("data.path=a\nb\x1b[31m: is\u2028wrong"), 2, r"data.path=a\nb\x1b[31m: is\u2028wrong"),
        (ConfigError(f"data.path={'x' * 10**6}: fix it"), 2, ": fix it"),
        (ConfigError("data.path=\udcff"), 2, r"data.path=\udcff"),
        (FULL, 74, "/data/run/metrics.jsonl: No space left on device"),
        (OSError("gs://bucket/a: the network is gone\nreally"), 74, r"gs://bucket/a: the network is gone\nreally"),
        (OSError(errno.EXDEV, "Invalid link", "a\n", None, "b"), 74, r"a\n -> b: Invalid link"),
        (followed(FULL, OSError("the handle is closed")), 74, "metrics.jsonl: No space left on device"),
        (ValueError('Error writing "x" [OS error 28: No space left on device]'), 74, "No space left"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deep"),
        (MemoryError(), 2, "out of memory"),
        (MemoryError("cannot allocate 9 TiB"), 2, "cannot allocate 9 TiB"),
        (OverflowError("int too large to convert"), 2, "int too large"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 TiB"), 3, "Out of memory"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_code(monkeypatch, capsys, command, error, code, said):
    def raises(argv):
        raise error

    monkeypatch.setattr(import_module(f"sparsejax.cli.{command}"), "main", raises)
    assert main([command]) == code
    line = capsys.readouterr().err
    assert line.startswith("sparsejax: ") and line.endswith("\n") and line[:-1].isprintable() and said in line
    assert len(line) < 5000


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def raises(argv):
        raise KeyError("unforeseen")

    monkeypatch.setattr(import_module("sparsejax.cli.train"), "main", raises)
    with pytest.raises(KeyError, match="unforeseen"):
        main(["train"])


@pytest.mark.parametrize("name", ["fly", "", "tr\nain", "-x"])
def test_no_such_command(capsys, name):
    assert main([name]) == 2
    line = capsys.readouterr().err
    assert "no such command; there are train, " in line and line[:-1].isprintable()


def test_a_full_disk_behind_the_output_is_one_line():
    code = "import sys; from sparsejax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    flags = ["advise", "--unique-tokens=1e9", "--flops=1e20"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, *flags], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (74, "sparsejax: reading or writing failed: No space left on device\n")


def test_all_commands_are_there():
    assert all(callable(import_module(f"sparsejax.cli.{command}").main) for command in COMMANDS)
