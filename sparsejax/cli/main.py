"""``sparsejax <command>``: finds the command, turns signals and errors into one line and an exit code.

Until signals have handlers nothing is imported that takes time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

# Exit codes: 0 done, 1 failed, 2 bad input, 3 does not fit, 4 diverged, 74 reading or writing failed, 75 preempted and
# saved, 76 another process of the run was lost, 130 stopped by Ctrl-C, 141 the reader of the output has left, 143
# stopped by SIGTERM.
_FAILED, _STOPPED, _READER_LEFT = 1, 130, 141

COMMANDS = {
    "train": "train a model, or continue a run",
    "tokenize": "tokenise a corpus once, on one host or many",
    "evaluate": "validation loss of a run",
    "generate": "text from a run",
    "harness": "tasks of the LM evaluation harness over a run",
    "export": "a run for transformers, or as a file of its active blocks, with a model card",
    "check": "does a run fit a machine, and how long does it take, before booking it",
    "sweep": "train every point of an ablation with every seed, and tabulate",
    "branch": "what the rewirings of a run cost: drop damage and cold start",
    "average": "the mean of runs that share a topology",
    "fit": "a scaling law from finished runs, with intervals and diagnostics",
    "advise": "which size, density and epochs, for so many unique tokens and FLOPs",
    "compare": "drift of runs, overlap of their masks",
}


# Commands that leave a run which another call continues.
_TRAIN = ("train", "sweep")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
      argv: the command and its flags; None for those of this process, which then is the command's: signals end it with
        a line and a code, and nothing of it outlives this call but what ``atexit`` runs.
    """
    if argv is not None:
        return _run(list(argv))
    from sparsejax.training.interrupts import ENDING

    ENDING.install(trains=sys.argv[1:2] != [] and sys.argv[1] in _TRAIN)
    import atexit

    from sparsejax.cli.streams import settle_streams

    settle_streams()
    # What is registered first is called last.
    atexit.register(ENDING.leave)
    code = _FAILED
    try:
        code = _run(sys.argv[1:])
        return code
    finally:
        ENDING.finished(code)


def _run(arguments: list[str]) -> int:
    import contextlib

    from sparsejax import __version__
    from sparsejax.files.failures import BAD_INPUT, known_failure
    from sparsejax.files.text import one_line

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
        print("usage: sparsejax <command> [flags]\n\ncommands:\n" + "\n".join(lines))
        print("\n'sparsejax <command> --help' lists the flags of a command")
        return 0
    if arguments[0] == "--version":
        print(f"sparsejax {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"sparsejax: {one_line(arguments[0])}: no such command; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT
    try:
        command: Callable[[list[str]], int] = import_module(f"sparsejax.cli.{arguments[0]}").main
        code = command(arguments[1:])
        _flush()
        return code
    except SystemExit as done:  # after --help
        return int(done.code or 0)
    except KeyboardInterrupt:
        print("sparsejax: stopped", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:
        # As of any command in front of `head`: no message.
        _close_output()
        return _READER_LEFT
    except Exception as error:
        failure = known_failure(error) or known_failure(_platform_problem() or error)
        if failure is None:
            raise
        code, line = failure
        print(f"sparsejax: {line}", file=sys.stderr)
        with contextlib.suppress(OSError):  # the first error was told
            _flush()
        return code


def _platform_problem() -> Exception | None:
    """The error of a JAX without devices, which the libraries that ask it for some put in words of their own."""
    if "jax" not in sys.modules:
        return None
    from sparsejax.config import ConfigError
    from sparsejax.training.platform import start_platform

    try:
        start_platform()
    except ConfigError as error:
        return error
    return None


def _flush() -> None:
    """Write what was printed; raises ``OSError``, once: the interpreter does not fail again at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_output()
        raise OSError(error.errno, f"the output cannot be written: {error.strerror}") from None


def _close_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
