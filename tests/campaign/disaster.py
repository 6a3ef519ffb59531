"""Train a run and end as power cuts and failing disks end it: ``disaster.py KIND NUMBER JOURNAL ARGV...``.

Kinds: ``power`` ends the process at its NUMBER-th sync of a file or folder, without a goodbye; JOURNAL then holds one
line for every sync: path, device, inode, size, time of the last change. ``never`` keeps the journal and ends as always.
``write`` lets the NUMBER-th rename, folder or sync fail with "no space left on device". ``poison`` makes the loss of a
batch NaN if the sum of its tokens is a multiple of NUMBER.
"""

import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

KIND, NUMBER, JOURNAL, ARGV = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
calls = 0
journal = open(JOURNAL, "a", encoding="utf-8")  # noqa: SIM115 - open until the end, whatever it is


def counted(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, which fails when it is its turn."""

    def call(*arguments: Any, **named: Any) -> Any:
        global calls
        calls += 1
        if KIND == "write" and calls == NUMBER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        return original(*arguments, **named)

    return call


def noted_sync(descriptor: int) -> None:
    """Sync, and write down what is now on the disk."""
    global calls
    real_sync(descriptor)
    calls += 1
    found = os.fstat(descriptor)
    line = [os.readlink(f"/proc/self/fd/{descriptor}"), found.st_ino, found.st_size, found.st_mtime_ns]
    journal.write(json.dumps(line) + "\n")
    journal.flush()
    if KIND == "power" and calls == NUMBER:
        os._exit(9)


real_sync = os.fsync
if KIND == "poison":
    import jax.numpy as jnp

    from sparsejax.training import loss

    plain = loss.loss_sums

    def poisoned_sums(logits_BTV: Any, target_BT: Any) -> Any:
        """The sums of the loss, NaN for some batches."""
        sums = plain(logits_BTV, target_BT)
        bad = jnp.sum(target_BT) % NUMBER == 0
        return dataclasses.replace(sums, nll=sums.nll * jnp.where(bad, jnp.nan, 1.0))

    loss.loss_sums = poisoned_sums
elif KIND == "write":
    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
else:
    os.fsync = noted_sync

from sparsejax.cli.main import main  # noqa: E402 - after the disaster was prepared

sys.exit(main(ARGV))
