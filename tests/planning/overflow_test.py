"""What compilers say about too little memory, in both of their wordings."""

import pytest

from sparsejax.planning.overflow import Overflow, read_overflow


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (41.50G) exceeds "
        "available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 41.50G of "
        "15.75G hbm. Exceeded hbm capacity by 25.75G.",
    ],
)
def test_both_wordings(message):
    assert read_overflow(message) == Overflow(needed=int(41.5 * 2**30), available=int(15.75 * 2**30))


def test_other_errors_are_not_about_memory():
    assert read_overflow("INVALID_ARGUMENT: Used 1G of 2G hbm") is None
    assert read_overflow("RESOURCE_EXHAUSTED: too many files") is None
