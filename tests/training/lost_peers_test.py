"""Which errors say that another process is gone, and which are this one's own."""

import jax
import pytest

from sparsejax.config import ConfigError
from sparsejax.training.lost_peers import LOST_PEER, LostPeers

CLOSED = "UNKNOWN: Gloo all-reduce failed: tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:12214"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (jax.errors.JaxRuntimeError(CLOSED), LOST_PEER),
        (ValueError(CLOSED), LOST_PEER),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), 3),
        (OSError(28, "No space left on device", "run/metrics.jsonl"), 74),
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
