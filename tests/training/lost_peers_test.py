"""Which errors say that another process is gone, and which are this one's own."""

import os
import threading
import time

import jax
import pytest

from sparsejax.config import ConfigError
from sparsejax.training.lost_peers import LOST_PEER, LostPeers, leave

CLOSED = "UNKNOWN: Gloo all-reduce failed: tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:12214"


def after(first: BaseException, second: BaseException) -> BaseException:
    """The second error, raised while the first was on its way out."""
    second.__context__ = first
    return second


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (jax.errors.JaxRuntimeError(CLOSED), LOST_PEER),
        (ValueError(CLOSED), LOST_PEER),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), 3),
        (jax.errors.JaxRuntimeError("INTERNAL: no such thing"), 1),
        (
            after(jax.errors.JaxRuntimeError(CLOSED), RuntimeError("cannot schedule new futures after shutdown")),
            LOST_PEER,
        ),
        (after(ValueError(CLOSED), OSError("the handle is closed")), LOST_PEER),
        (OSError("a disk is gone"), 74),
        (ValueError("shape (3,) is not (4,): Gloo"), 1),
        (TypeError(CLOSED), 1),
        (ConfigError("optim.lr=0: must be above 0"), 2),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_the_exit_code_of_an_error(error, code):
    found, message = LostPeers(heartbeat_timeout=100)._verdict(error)
    assert found == code
    assert ("another process is gone" in message) == (code == LOST_PEER)


def write_stacks() -> None:
    """What JAX's thread does before it aborts."""
    while True:
        os.write(2, b"    @ 0x7f tsl::PThread::ThreadFn()\n")
        time.sleep(0.001)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:This process:DeprecationWarning")
def test_the_last_line_is_whole_and_last_while_other_threads_write_and_leave_too():
    """As when JAX aborts from one thread, and writes its stacks, while an error of the link reaches another."""
    end = os._exit
    for _ in range(5):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(write, 2)
            os._exit = lambda code: (time.sleep(0.1), end(code))  # type: ignore[assignment]  # a slow end
            for target in (write_stacks, lambda: leave(LOST_PEER, "the line"), lambda: leave(LOST_PEER, "the line")):
                threading.Thread(target=target, daemon=True).start()
            leave(LOST_PEER, "a report\nthe line")
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            lines = pipe.read().splitlines()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == LOST_PEER
        assert lines[-1] == b"the line" and lines.count(b"the line") == 1
