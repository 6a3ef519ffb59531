"""From a data configuration to batches: budgets, epochs, restarts, and the fixed validation batches."""

import dataclasses
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import train_bpe
from sparsejax.data.pipeline import TrainBatches, open_corpus, validation_batches
from sparsejax.data.token_files import TokenFile, TokenMeta
from tests.data.conftest import texts

L = 4


def tokens(count: int, split: str = "train") -> TokenFile:
    """A token file whose ids count up, so that a row is known by its first id."""
    return TokenFile(np.arange(count, dtype=np.uint16), TokenMeta(count, count, 1, "<u2", ""), split)


def batches(file: TokenFile, said: list[str] | None = None, **changes: object) -> TrainBatches:
    settings = {
        "sequence_length": L,
        "unique_tokens": 0,
        "batch_size": 3,
        "epochs": 0,
        "steps": 0,
        "seed": 0,
        "reshuffle_each_epoch": True,
        "filled": (),
    }
    notice = said.append if said is not None else pytest.fail
    return TrainBatches(file, **{**settings, **changes}, notice=notice)


def rows_of(planned: TrainBatches) -> list[int]:
    """Row numbers in the order they are trained on, padding left out."""
    rows = np.concatenate([planned.batch(i) for i in range(planned.steps)])
    real = rows[rows[:, 0] >= 0]
    np.testing.assert_array_equal(real, real[:, :1] + np.arange(L))
    return [int(first) // L for first in real[:, 0]]


def test_seven_rows_twice_in_batches_of_three() -> None:
    # epoch       0 0 0 0 0 0 0 1 1 1 1 1 1 1 - padding
    # batch       0 0 0 1 1 1 2 2 2 3 3 3 4 4 4
    planned = batches(tokens(30), epochs=2)
    assert (planned.rows, planned.unique_tokens, planned.steps, planned.epochs) == (7, 28, 5, 2.0)
    assert [planned.epoch_of(i) for i in range(5)] == [0, 0, 0, 1, 1]
    last = planned.batch(4)
    assert last.shape == (3, L) and last.dtype == np.int32
    np.testing.assert_array_equal(last[2], [-1] * L)
    rows = rows_of(planned)
    assert sorted(rows[:7]) == sorted(rows[7:]) == list(range(7))
    assert rows[:7] != rows[7:]


@pytest.mark.parametrize("budget", [L, 5 * L, 0])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("reshuffle", [True, False])
def test_exactly_the_budget_each_row_exactly_five_times(budget: int, batch_size: int, reshuffle: bool) -> None:
    planned = batches(tokens(80), unique_tokens=budget, batch_size=batch_size, epochs=5, reshuffle_each_epoch=reshuffle)
    rows = rows_of(planned)
    assert Counter(rows) == dict.fromkeys(range(planned.rows), 5)
    assert planned.unique_tokens == (budget or 80)
    epochs = [rows[start : start + planned.rows] for start in range(0, len(rows), planned.rows)]
    assert all(sorted(epoch) == list(range(planned.rows)) for epoch in epochs)
    assert (len({tuple(epoch) for epoch in epochs}) == 1) == (not reshuffle or planned.rows == 1)


def test_smaller_budgets_are_inside_larger_ones() -> None:
    seen = [set(rows_of(batches(tokens(200), unique_tokens=n * L, epochs=1))) for n in (1, 7, 20, 50)]
    assert seen[0] < seen[1] < seen[2] < seen[3]


def test_steps_give_full_batches_and_a_fraction_of_an_epoch() -> None:
    planned = batches(tokens(7 * L), steps=4)
    assert planned.steps == 4 and planned.epochs == 12 / 7
    assert len(rows_of(planned)) == 12
    counts = Counter(rows_of(planned))
    assert set(counts.values()) <= {1, 2} and len(counts) == 7


def test_more_steps_change_no_earlier_batch() -> None:
    short, long, epochs = (
        batches(tokens(7 * L), **{key: n}) for key, n in (("steps", 3), ("steps", 40), ("epochs", 3))
    )
    for i in range(3):
        np.testing.assert_array_equal(short.batch(i), long.batch(i))
        np.testing.assert_array_equal(short.batch(i), epochs.batch(i))


@pytest.mark.parametrize("length", [{"epochs": 3}, {"steps": 9}])
def test_a_restart_anywhere_gives_the_same_later_batches(length: dict[str, int]) -> None:
    planned = batches(tokens(10 * L), batch_size=4, seed=5, **length)
    whole = list(planned.iterate(0))
    assert len(whole) == planned.steps
    for start in range(planned.steps + 1):
        again = list(batches(tokens(10 * L), batch_size=4, seed=5, **length).iterate(start))
        assert len(again) == planned.steps - start
        for i, batch in enumerate(again, start):
            np.testing.assert_array_equal(batch, whole[i])
            np.testing.assert_array_equal(batch, planned.batch(i))


def test_the_order_is_a_function_of_the_seed() -> None:
    orders = [tuple(rows_of(batches(tokens(50 * L), epochs=2, seed=seed))) for seed in (0, 0, 1, 2, -1, 2**40)]
    assert orders[0] == orders[1] and len(set(orders)) == 5
    # Neighbouring seeds must not share an epoch's order.
    assert orders[0][50:] != orders[2][:50] and orders[2][50:] != orders[3][:50]


def test_the_prefetch_thread_ends_with_the_iterator() -> None:
    before = set(threading.enumerate())
    left_early = batches(tokens(100 * L), epochs=4).iterate(2)
    used_up = batches(tokens(10 * L), epochs=4).iterate(0)
    next(left_early)
    assert len(list(used_up)) == 14
    started = set(threading.enumerate()) - before
    assert started
    left_early.close()
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_two_hosts_share_batches_whose_last_one_is_half_padding() -> None:
    # rows 0 .. 5, then two of padding; part 1 of 2 of the second batch is all padding
    planned = batches(tokens(6 * L), batch_size=4, epochs=1)
    first, second = planned.iterate(0, parts=(1,), of=2)
    np.testing.assert_array_equal(first, planned.batch(0)[2:])
    np.testing.assert_array_equal(second, np.full((2, L), -1))
    (swapped,) = planned.iterate(1, parts=(1, 0), of=2)
    np.testing.assert_array_equal(swapped, np.roll(planned.batch(1), 2, axis=0))


@pytest.mark.parametrize("of", [1, 2, 4, 8])
@pytest.mark.parametrize("length", [{"epochs": 3}, {"steps": 7}])
def test_parts_of_every_batch_make_the_whole_batch(of: int, length: dict[str, int]) -> None:
    planned = batches(tokens(20 * L), batch_size=8, seed=3, **length)
    whole = np.stack([planned.batch(i) for i in range(planned.steps)])
    hosts = [np.stack(list(planned.iterate(0, parts=(part,), of=of))) for part in range(of)]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), whole)
    parts = tuple(reversed(range(0, of, 2)))
    found = np.stack(list(planned.iterate(2, parts=parts, of=of)))
    np.testing.assert_array_equal(found, np.concatenate([hosts[part][2:] for part in parts], axis=1))
    assert found.dtype == np.int32


def test_only_the_rows_of_the_parts_are_read() -> None:
    class Recorded(np.ndarray):
        """Ids that remember which rows were read."""

        read: ClassVar[set[int]] = set()

        def __getitem__(self, key: slice) -> np.ndarray:
            Recorded.read.add(key.start // L)
            return np.asarray(self)[key]

    file = tokens(32 * L)
    planned = batches(dataclasses.replace(file, ids=file.ids.view(Recorded)), batch_size=8, epochs=1)
    found = np.concatenate(list(planned.iterate(0, parts=(3,), of=4)))
    assert found.shape == (8, L) and Recorded.read == set((found[:, 0] // L).tolist())


@pytest.mark.parametrize(("count", "most"), [(130, 10**9), (130, 70), (3, 9)])
@pytest.mark.parametrize("of", [1, 2, 4, 8])
def test_parts_of_validation_batches_make_the_whole_batches(count: int, most: int, of: int) -> None:
    file = tokens(count, "validation")
    whole = np.stack(list(validation_batches(file, L, 8, most)))
    hosts = [np.stack(list(validation_batches(file, L, 8, most, parts=(part,), of=of))) for part in range(of)]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), whole)
    swapped = np.stack(list(validation_batches(file, L, 8, most, parts=(of - 1, 0), of=of)))
    np.testing.assert_array_equal(swapped, np.concatenate([hosts[-1], hosts[0]], axis=1))


@pytest.mark.parametrize(
    ("parts", "of", "message"),
    [((0,), 3, "8 rows has no 3 equal parts"), ((0,), 0, "no 0 equal parts"), ((0, 4), 4, r"\(0, 4\) are not all in")],
)
def test_impossible_parts_are_refused(parts: tuple[int, ...], of: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(batches(tokens(80), batch_size=8, epochs=1).iterate(0, parts, of))
    with pytest.raises(ValueError, match=message):
        next(validation_batches(tokens(80), L, 8, 80, parts, of))


def test_batches_outside_the_run_are_refused() -> None:
    planned = batches(tokens(7 * L), steps=4)
    for i in (-1, 4):
        with pytest.raises(IndexError, match="outside"):
            planned.batch(i)
    for both in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="exactly one of epochs"):
            batches(tokens(7 * L), **both)


def test_a_budget_is_rounded_down_to_rows_and_that_is_said_once() -> None:
    said: list[str] = []
    assert batches(tokens(80), said, unique_tokens=23, epochs=1).unique_tokens == 20
    assert said == ["data.unique_tokens=23: rounded down to 20, 5 rows of 4 tokens"]


@pytest.mark.parametrize(
    ("count", "budget", "message"),
    [
        (80, 81, "data.unique_tokens=81: the train split has only 80 tokens"),
        (80, 3, "data.unique_tokens=3: is less than one row of data.sequence_length=4"),
        (3, 0, "data.sequence_length=4: the train split has only 3 tokens"),
    ],
)
def test_impossible_budgets_are_named(count: int, budget: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        batches(tokens(count), unique_tokens=budget, epochs=1)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("count", "most"), [(30, 10**9), (30, 24), (30, 13), (24, 24), (2, 9)])
def test_validation_predicts_every_token_once_in_order(count: int, most: int) -> None:
    found = list(validation_batches(tokens(count, "validation"), L, 3, most))
    assert all(batch.shape == (3, L) and batch.dtype == np.int32 for batch in found)
    flat = np.concatenate(found).ravel()
    real = min(count, most)
    np.testing.assert_array_equal(flat[:real], np.arange(real))
    assert (flat[real:] == -1).all() and len(found) == -(-real // (3 * L))


def test_a_corpus_opens_with_each_tokenizer(data_config, t5_model: Path, tmp_path: Path) -> None:
    train_bpe(texts(50), 300).save(tmp_path / "hub")
    settings = {
        "byte": {},
        "bpe": {"vocab_size": 320},
        "sentencepiece": {"tokenizer_path": str(t5_model)},
        "hf": {"tokenizer_path": str(tmp_path / "hub/tokenizer.json")},
    }
    said: list[str] = []
    corpora = {
        kind: open_corpus(data_config(tokenizer=kind, **fields), said.append) for kind, fields in settings.items()
    }
    assert len({corpus.data_digest for corpus in corpora.values()}) == 1
    assert len({corpus.tokenizer.digest for corpus in corpora.values()}) == 4
    for corpus in corpora.values():
        assert corpus.train.ids.max() < corpus.tokenizer.vocab_size
        assert corpus.train.ids[-1] == corpus.validation.ids[-1] == corpus.tokenizer.end_id
        assert corpus.train.meta.text_bytes == corpora["byte"].train.meta.text_bytes
    assert sum("tokenising" in line for line in said) == 4


@pytest.mark.parametrize("kind", ["array_record", "tfrecord", "parquet"])
def test_record_files_open_as_corpora(kind: str, data_config, request: pytest.FixtureRequest) -> None:
    pattern = request.getfixturevalue(f"c4_{kind}")
    corpus = open_corpus(data_config(source=kind.replace("_", ""), path=pattern), [].append)
    assert corpus.train.tokens > corpus.validation.tokens > 0
    planned = batches(corpus.train, [], sequence_length=32, unique_tokens=640, epochs=1, batch_size=5)
    assert planned.steps == 4 and planned.batch(0).shape == (5, 32)


def test_missing_and_empty_paths_are_one_line(data_config, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for name, message in (("nothing*.jsonl", "no file matches"), ("empty.jsonl", "is empty")):
        with pytest.raises(ConfigError) as error:
            open_corpus(data_config(path=str(tmp_path / name)), pytest.fail)
        assert str(error.value).startswith(f"data.path={tmp_path / name}: ") and message in str(error.value)
        assert "\n" not in str(error.value)
