"""An I/O error that ends a run: one line, which says what was saved before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sparsejax.files.failures import IO_FAILED, known_failure
from sparsejax.training.checkpoint_record import steps_in
from sparsejax.training.workdir import RunDirectory


@contextlib.contextmanager
def told_with_last_checkpoint(workdir: RunDirectory) -> Iterator[None]:
    """Raise an I/O error of the block again as an ``OSError`` whose text names the last whole checkpoint."""
    try:
        yield
    except Exception as error:
        code, line = known_failure(error) or (None, "")
        if code != IO_FAILED:
            raise
        steps = []
        # Where nothing can be read any more, the first error is still the one to tell.
        with contextlib.suppress(OSError):
            steps = steps_in(workdir)
        saved = f"the last whole checkpoint is that of step {steps[-1]}" if steps else "no checkpoint was saved before"
        raise OSError(f"{line}; {saved}, the same command continues the run") from None
