"""Ids in several files that read like one array."""

from pathlib import Path

import numpy as np
import pytest

from sparsejax.data.sharded_ids import ShardedIds


@pytest.fixture
def ids(tmp_path: Path) -> ShardedIds:
    """0 to 9 in files of 4, 0, 1, 5 and 0 ids."""
    files = []
    for number, (start, stop) in enumerate([(0, 4), (4, 4), (4, 5), (5, 10), (10, 10)]):
        files.append(tmp_path / str(number))
        np.arange(start, stop, dtype="<u2").tofile(files[-1])
    return ShardedIds(files, "<u2")


def test_every_slice_is_that_of_one_array(ids: ShardedIds) -> None:
    whole = np.arange(10, dtype=np.uint16)
    assert ids.size == 10 and ids.dtype == np.uint16
    for start in range(-11, 13):
        for stop in (*range(-11, 13), None):
            found = ids[start:stop]
            assert found.dtype == np.uint16
            np.testing.assert_array_equal(found, whole[start:stop])


def test_a_slice_of_one_file_is_not_copied(ids: ShardedIds) -> None:
    assert isinstance(ids[5:10], np.memmap) and not ids[5:10].flags.writeable
    assert not isinstance(ids[4:6], np.memmap)


def test_steps_are_refused(ids: ShardedIds) -> None:
    with pytest.raises(ValueError, match="step of 2"):
        ids[::2]
