import dataclasses
import json
import math
import shutil

import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling.runs import read
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.evaluate import Evaluation
from sparsejax.training.loop import train, train_batches
from sparsejax.training.metrics import read_rows
from sparsejax.training.metrics_rows import row_line
from sparsejax.training.provenance import git_commit
from sparsejax.training.result import write_result
from tests.training.tiny import quiet_console, tiny_run, write_text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    console = quiet_console()
    outcome = train(tiny_run(directory), directory / "run", extend=False, console=console)
    return directory, outcome, console.file.getvalue()


def rows_of(directory, kind):
    return [row for row in read_rows(directory / "run" / "metrics.jsonl") if row["kind"] == kind]


def test_a_finished_run_leaves_its_whole_record(finished):
    directory, outcome, text = finished
    assert outcome.exit_code == 0 and outcome.step == 12
    assert [row["step"] for row in rows_of(directory, "train")] == list(range(1, 13))
    assert [row["step"] for row in rows_of(directory, "rewire")] == [3, 6, 9]
    assert [row["step"] for row in rows_of(directory, "eval")] == [12]
    for name in ("config.json", "result.json", "tokenizer", "tensorboard", "checkpoints/12"):
        assert (directory / "run" / name).exists(), name
    assert "attention.q" in text and "step 12/12" in text


def test_the_loss_falls(finished):
    losses = [row["loss"] for row in rows_of(finished[0], "train")]
    assert losses[-1] < losses[0] - 0.5


def test_rates_epochs_and_learning_rates_are_logged(finished):
    rewires, train_rows = rows_of(finished[0], "rewire"), rows_of(finished[0], "train")
    # Cosine from 0.3 to 0.005 over 12 steps, at 3, 6 and 9.
    expected = [0.005 + 0.295 * (1 + math.cos(math.pi * step / 12)) / 2 for step in (3, 6, 9)]
    assert [row["topology/rate"] for row in rewires] == pytest.approx(expected)
    assert [row["epoch"] for row in train_rows] == [0] * 5 + [1] * 5 + [2] * 2
    assert train_rows[-1]["learning_rate"] == pytest.approx(1e-3)
    assert train_rows[-1]["total_tokens"] == 12 * 4 * 16


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_leaves_a_result_of_strict_json(loss, finished, tmp_path):
    directory, outcome, _ = finished
    run, workdir = tiny_run(directory), tmp_path / "run"
    shutil.copytree(directory / "run", workdir)
    path = workdir / "metrics.jsonl"
    rows = [row | {"loss_mean": loss, "loss_max": loss} if row["step"] == 12 else row for row in read_rows(path)]
    path.write_text("".join(row_line(row) + "\n" for row in rows))
    batches = train_batches(run, outcome.corpus, [], print)
    evaluation = Evaluation(loss=loss, tokens=256, bits_per_byte=loss, bytes_per_token=1.0)
    write_result(workdir, outcome.recipe, outcome.corpus, batches, evaluation, 1.0)
    written = json.loads((workdir / "result.json").read_text(), parse_constant=pytest.fail)
    lost = ("train_loss", "validation_loss", "bits_per_byte")
    assert written["not_finite"] == dict.fromkeys(lost, str(loss))
    assert all(written[name] is None for name in lost) and written["loss_spike"] >= 0
    # The same command again: the run stays finished.
    again = train(run, workdir, extend=False, console=quiet_console())
    assert again.exit_code == 0 and json.loads((workdir / "result.json").read_text()) == written


def test_result_row(finished):
    directory, outcome, _ = finished
    result = read(directory / "run" / "result.json")
    assert result.validation_loss == outcome.evaluation.loss
    assert (result.unique_tokens, result.total_tokens) == (320, 768)
    assert result.epochs == pytest.approx(2.4)
    assert result.density == pytest.approx(0.5) and result.block == (4, 4) and result.method == "smet"
    assert result.executed_flops >= result.theoretical_flops > 0
    assert result.started_from == "" and result.git_commits == git_commit()


def test_the_same_command_again_only_reports(finished):
    directory, outcome, _ = finished
    before = {name: (directory / "run" / name).read_bytes() for name in ("metrics.jsonl", "result.json")}
    again = train(tiny_run(directory), directory / "run", extend=False, console=quiet_console())
    assert again.exit_code == 0 and again.evaluation == outcome.evaluation
    assert {name: (directory / "run" / name).read_bytes() for name in before} == before


def test_another_config_in_the_same_directory_is_refused(finished):
    directory, _, _ = finished
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.01 -> 0\.02"):
        train(tiny_run(directory, optim_lr=0.02), directory / "run", extend=False, console=quiet_console())


def test_other_text_in_the_same_directory_is_refused(finished):
    directory, _, _ = finished
    other = write_text(directory / "other.txt", seed=1)
    with pytest.raises(ConfigError, match="data_digest"):
        train(tiny_run(directory, data_path=str(other)), directory / "run", extend=False, console=quiet_console())


def test_divergence_stops_with_4_and_keeps_the_last_good_checkpoint(tmp_path):
    changes = {"optim_lr": 1e30, "optim_warmup_fraction": 0.0, "train_nonfinite_limit": 3, "train_checkpoint_every": 1}
    run = tiny_run(tmp_path, **changes)
    console = quiet_console()
    outcome = train(run, tmp_path / "run", extend=False, console=console)
    assert outcome.exit_code == 4 and outcome.evaluation is None
    assert int(outcome.state.skipped_in_row) >= 3
    with Checkpoints(tmp_path / "run", keep_last=2, keep_every=0, notice=print) as checkpoints:
        assert checkpoints.steps
    assert "diverged: 3 steps in a row" in console.file.getvalue()
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_epochs_decide_the_length_and_a_profile_is_written(tmp_path):
    profile = {"train_profile_start": 1, "train_profile_steps": 2}
    run = tiny_run(tmp_path, train_steps=0, train_epochs=2, data_unique_tokens=112, **profile)
    outcome = train(run, tmp_path / "run", extend=False, console=quiet_console())
    # 7 rows twice are 14 rows: 3 full batches of 4 and one of 2.
    result = read(tmp_path / "run" / "result.json")
    assert outcome.step == 4 and result.epochs == 2.0 and result.total_tokens == 224
    assert len(list((tmp_path / "run" / "tensorboard").rglob("*.xplane.pb"))) == 1


def test_the_config_is_recorded(finished):
    manifest = json.loads((finished[0] / "run" / "config.json").read_text())
    run = tiny_run(finished[0])
    assert manifest["config"]["topology"]["density"] == run.topology.density
    assert manifest["steps"] == 12
    assert set(manifest["config"]) == {field.name for field in dataclasses.fields(run)}
