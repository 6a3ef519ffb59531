"""An I/O error that ends a run is one line, and says what was saved before."""

import errno
import os

import pytest

from sparsejax.files.failures import known_failure
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.io_failures import told_with_last_checkpoint
from tests.training.checkpoint_test import CONFIG, saved, state_at


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_the_first_error_of_a_save_is_told_with_the_last_whole_step(number, tmp_path, monkeypatch):
    saved(tmp_path, [1])

    def refused(descriptor):
        raise OSError(number, os.strerror(number))

    with (
        pytest.raises(OSError, match="step 1") as error,
        told_with_last_checkpoint(tmp_path),
        Checkpoints(tmp_path, keep_last=2, keep_every=0, notice=print) as checkpoints,
    ):
        monkeypatch.setattr(os, "fsync", refused)
        checkpoints.save(state_at(2), CONFIG)
    code, line = known_failure(error.value)
    assert code == 74 and str(tmp_path) in line and os.strerror(number) in line and "\n" not in line
    assert checkpoints.steps == [1]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "run/metrics.jsonl"),
        ValueError("UNKNOWN: Failed writing: \"a\": No space left on device [os_error_code='28']"),
        ValueError('Error writing "a" [OS error 28: ENOSPC No space left on device]'),
    ],
)
def test_errors_of_storage_and_no_others_are_told_so(error, tmp_path):
    with pytest.raises(OSError, match="no checkpoint was saved before"), told_with_last_checkpoint(tmp_path):
        raise error
    with pytest.raises(KeyError), told_with_last_checkpoint(tmp_path):
        raise KeyError("a fault of the program")
