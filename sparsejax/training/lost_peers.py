"""How a process of several ends when it cannot go on with the others: at once, with one line and an exit code.

Nobody waits for a process that is gone. JAX notices by missing heartbeats (or at once, if process 0 is the one) and
aborts from a thread of its own; on CPUs and GPUs a broken collective may raise before. Either way the process says so
in one line and exits with ``LOST_PEER``: nothing was saved after the last checkpoint, and all processes are to be
started again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import NoReturn, Self

import jax

from sparsejax.config import ConfigError
from sparsejax.files.failures import chain, known_failure
from sparsejax.training.interrupts import INTERRUPTED

# EX_PROTOCOL: "the other side failed". Worth starting again, like 75, but nothing was saved for it.
LOST_PEER = 76
_FAILED = 1
# Seconds in which JAX may still say that the error of its runtime was the loss of a peer.
_GRACE = 5.0
_SETTLE = 0.1

# What JAX's errors say when it was another process that failed; other errors of the runtime are this one's own.
_BROKEN_LINK = (
    "Gloo",
    "NCCL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "heartbeat",
    "oordination service",
    "oordination agent",
    "Broken pipe",
    "Socket closed",
    "Connection reset",
    "Connection closed",
)

_AbortHandler = ctypes.CFUNCTYPE(None, ctypes.c_int)


class SharedError(ConfigError):
    """A ``ConfigError`` that every process of the run raises at the same place, so that they leave in order."""


class LostPeers:
    """Context manager of a process that has peers; its body's errors, and JAX's aborts, end the process.

    Only ``SharedError`` passes through. Exit codes: 76 a peer is gone, 130 a second Ctrl-C, those of
    ``files.failures`` for this process's own errors (2 bad input), 1 any other error.

    Attributes:
      name: what the process calls itself in its last line.
      waiting_for: while processes are joining, what to say if they do not come; else "".
    """

    def __init__(self, heartbeat_timeout: int) -> None:
        """``heartbeat_timeout``: seconds after which JAX counts a silent process as lost; for the last line."""
        self.name, self.waiting_for = "this process", ""
        self._seconds = heartbeat_timeout

    def __enter__(self) -> Self:
        # JAX ends a process by C's abort(), which Python cannot catch. The handler must be C's, and never returns;
        # abort() is called by a thread that holds no Python lock, so the callback may wait for it.
        self._c_signal = ctypes.CDLL(None).signal
        self._c_signal.restype, self._c_signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
        self._handler = _AbortHandler(self._aborted)
        self._previous = self.listen()
        return self

    def listen(self) -> int | None:
        """Take the abort signal, again where a platform that started has taken it; returns the handler before."""
        previous: int | None = self._c_signal(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))
        return previous

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, SharedError):
            code, message = self._verdict(error)
            if code == _FAILED and any(map(_of_runtime, chain(error))):
                time.sleep(_GRACE)
            leave(code, message)
        self._c_signal(signal.SIGABRT, self._previous)

    def _aborted(self, number: int) -> None:
        leave(LOST_PEER, f"sparsejax: {self._lost()}")

    def _lost(self) -> str:
        if self.waiting_for:
            return f"{self.waiting_for}; start all of them again"
        return (
            f"{self.name}: another process is gone (silent for --heartbeat_timeout={self._seconds} s, or its "
            "connection broke); what came after the last checkpoint is lost, start all processes again"
        )

    def _verdict(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED, f"sparsejax: {self.name}: stopped"
        report = "".join(traceback.format_exception(error))
        # What broke first may have made something else fail on the way out.
        if any(_of_runtime(link) and any(mark in str(link) for mark in _BROKEN_LINK) for link in chain(error)):
            return LOST_PEER, f"{report}sparsejax: {self._lost()}"
        failure = known_failure(error)
        return (_FAILED, report.rstrip()) if failure is None else (failure[0], f"sparsejax: {failure[1]}")


def _of_runtime(error: BaseException) -> bool:
    """Whether JAX's runtime raised it; what fails while a program is handed over comes as a plain ``ValueError``."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return True
    return type(error) is ValueError and re.match(r"[A-Z_]+: ", str(error)) is not None


_leaving = threading.Lock()


def leave(code: int, message: str) -> NoReturn:
    """End the process now, without the farewell to its peers that JAX makes at exit and that would wait for them.

    ``message`` is the last that the process says: JAX's threads, which may be writing the stacks of an abort, are not
    heard any more. Of several threads that want to leave the first does.
    """
    if not _leaving.acquire(blocking=False):
        threading.Event().wait()
    try:
        if threading.current_thread() is threading.main_thread():  # else it may be held by the one that is
            with contextlib.suppress(Exception):  # closed or full
                sys.stdout.flush()
                sys.stderr.flush()
        end = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        # What they have begun to write is let through.
        time.sleep(_SETTLE)
        text = f"{message}\n".encode(errors="backslashreplace")
        while text:
            text = text[os.write(end, text) :]
    finally:
        os._exit(code)
