"""Slices of splits; the rows are those that ``ReadInstruction`` of datasets 5.2.0 gives."""

import pytest

from sparsejax.data.hf_slices import parse_slices, without_rows


@pytest.mark.parametrize(
    ("text", "size", "rows"),
    [
        ("train", 7, (0, 7)),
        ("train[:]", 7, (0, 7)),
        ("train[:90%]", 7, (0, 6)),
        ("train[90%:]", 7, (6, 7)),
        ("train[-10%:]", 1999, (1799, 1999)),
        ("train[:50%]", 5, (0, 2)),
        ("train[:50%]", 7, (0, 4)),
        ("train[1_0:20]", 15, (10, 15)),
        ("train[-3:-1]", 10, (7, 9)),
        ("train[-30:2]", 10, (0, 2)),
        ("train[5:10%]", 100, (5, 10)),
        ("train[:10%](pct1_dropremainder)", 199, (0, 10)),
        ("train[-1%:](pct1_dropremainder)", 199, (198, 199)),
        ("train[:10%](closest)", 199, (0, 20)),
    ],
)
def test_rows_of_slices(text: str, size: int, rows: tuple[int, int]) -> None:
    (found,) = parse_slices(text)
    assert found.split == "train" and found.rows(size) == range(*rows)


def test_slices_are_joined() -> None:
    assert [part.split for part in parse_slices("train[:1] + test.a+train")] == ["train", "test.a", "train"]


def test_rows_left_over() -> None:
    for taken in (
        [],
        [range(2, 4)],
        [range(6, 20), range(0, 1)],
        [range(3, 5), range(4, 8)],
        [range(9)],
        [range(3, 3)],
    ):
        left = [row for rows in without_rows(range(1, 9), taken) for row in rows]
        assert left == [row for row in range(1, 9) if not any(row in gone for gone in taken)]
