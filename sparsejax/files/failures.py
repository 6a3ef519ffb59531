"""Errors of the machine and of sizes, as one line and an exit code; they can reach any command with any input.

Errors of the user are ``ConfigError`` and have their line already. Any other error is a fault of the program, and keeps
its traceback.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.files.text import printable

# 74 is EX_IOERR of sysexits.h.
BAD_INPUT, DOES_NOT_FIT, IO_FAILED = 2, 3, 74

_PACKAGE = Path(__file__).resolve().parents[1]
# TensorStore, which writes checkpoints, raises ValueError for what the system refused.
_OF_SYSTEM = re.compile(r"\[OS error \d+|\[os_error_code='\d+'\]")


def known_failure(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the line of an error, or None for a fault of the program.

    Of several I/O errors that followed from one another the first is told.

    Args:
      error: anything that a command raised.
    """
    if isinstance(error, ConfigError):
        return BAD_INPUT, printable(error)
    if isinstance(error, RecursionError):
        return BAD_INPUT, f"the input is nested too deep ({_place(error)})"
    if isinstance(error, MemoryError):
        reason = f"{printable(error)}; " if str(error) else ""
        return BAD_INPUT, f"out of memory: {reason}the input is too large for this machine ({_place(error)})"
    if isinstance(error, OverflowError):
        return BAD_INPUT, f"a number is too large: {printable(error)} ({_place(error)})"
    if isinstance(error, OSError):
        return IO_FAILED, _line_of_io([each for each in chain(error) if isinstance(each, OSError)][-1])
    if _OF_SYSTEM.search(str(error)):
        return IO_FAILED, printable(error)
    if _is_device_memory(error):
        line = printable(str(error).partition("\n")[0])
        return DOES_NOT_FIT, f"the run does not fit the memory of the device: {line}; see 'sparsejax check --help'"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it followed from, the first one last."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _line_of_io(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    if not names and error.errno is None:
        return printable(reason)
    return printable(": ".join([" -> ".join(names), reason] if names else ["reading or writing failed", reason]))


def _place(error: BaseException) -> str:
    """The last line of ours that was running, for a report."""
    for frame in reversed(traceback.extract_tb(error.__traceback__, limit=-50)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return f"in sparsejax/{path.relative_to(_PACKAGE).as_posix()}, line {frame.lineno}"
    return "in a library"


def _is_device_memory(error: BaseException) -> bool:
    # Whoever raised this has imported jax.
    if "jax.errors" not in sys.modules:
        return False
    return isinstance(error, sys.modules["jax.errors"].JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
