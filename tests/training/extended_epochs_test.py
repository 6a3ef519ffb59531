"""Runs of whole epochs that are made longer: every row once an epoch, and a result that says so."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sparsejax.data.pipeline import TrainBatches
from sparsejax.scaling.runs import read
from sparsejax.training import workdir as rundir
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from tests.training.tiny import quiet_console, tiny_run

# Ten rows in batches of eight: an epoch ends in a batch of two rows and padding.
ROWS, BATCH, LENGTH = 10, 8, 16
SETTINGS = {"data_unique_tokens": ROWS * LENGTH, "train_batch_size": BATCH, "train_steps": 0, "topology_every": 2}


def run_of(directory: Path, epochs: int):
    return tiny_run(directory, **SETTINGS, train_epochs=epochs, train_checkpoint_every=2)


def finished(directory: Path, epochs: int, filled: list[int], *, ended: bool) -> None:
    """A run directory as a run of so many epochs leaves it, at its end or one step before."""
    steps = -(-ROWS * epochs // BATCH)
    rundir.write_manifest(directory / "run", run_of(directory, epochs), steps, "d", "t", filled=filled)
    (directory / "run" / "checkpoints" / str(steps if ended else steps - 1)).mkdir(parents=True)


@pytest.mark.parametrize(
    ("before", "ended", "epochs", "found"),
    [([], True, 2, [1]), ([], False, 2, []), ([], True, 1, []), ([], True, 5, [1])],
)
def test_the_end_of_a_finished_run_stays_one(
    before: list[int], ended: bool, epochs: int, found: list[int], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    run = run_of(tmp_path, epochs)
    assert rundir.filled_epochs(tmp_path / "run", run) == []
    finished(tmp_path, 1, before, ended=ended)
    assert rundir.filled_epochs(tmp_path / "run", run) == found
    # The longer run remembers it, whatever checkpoints there are later.
    rundir.write_manifest(tmp_path / "run", run, 9, "d", "t", filled=found)
    assert rundir.filled_epochs(tmp_path / "run", run) == found


def test_a_manifest_of_before_has_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    finished(tmp_path, 1, [], ended=True)
    path = tmp_path / "run" / "config.json"
    manifest = json.loads(path.read_text())
    del manifest["filled_epochs"], manifest["check"]
    path.write_text(json.dumps(manifest))
    assert rundir.filled_epochs(tmp_path / "run", run_of(tmp_path, 1)) == []


@pytest.mark.slow
def test_three_lengths_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    original = TrainBatches.iterate

    def iterate(self: TrainBatches, *arguments: object) -> object:
        for batch in original(self, *arguments):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(TrainBatches, "iterate", iterate)
    for epochs in (1, 2, 4):
        outcome = train(run_of(tmp_path, epochs), tmp_path / "run", extend=True, console=quiet_console())
        assert outcome.exit_code == 0
        trained = Counter(row.tobytes() for row in np.concatenate(seen) if row[0] >= 0)
        assert len(trained) == ROWS and set(trained.values()) == {epochs}
        result = read(tmp_path / "run" / "result.json")
        assert (result.total_tokens, result.epochs) == (epochs * ROWS * LENGTH, epochs)
        assert (result.unique_tokens, result.steps) == (ROWS * LENGTH, len(seen))
        logged = [
            row["total_tokens"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"
        ]
        assert logged == [int((np.concatenate(seen[: step + 1]) >= 0).sum()) for step in range(len(seen))]
    assert rundir.filled_epochs(tmp_path / "run", run_of(tmp_path, 4)) == [1, 2]
