"""Rows and tables: one convention, decayed runs only, known headers, and one line for what is wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling import runs
from sparsejax.scaling.rows import ScalingRow, table_of
from sparsejax.scaling.tables import read_file, read_rows, saved_rows
from tests.scaling.runs_test import RESULT

ROW = ScalingRow("a", 1e8, "total", 4e9, 1e9, 1.0, 3.0)
OWN = "name,parameters,convention,tokens,unique_tokens,density,loss"


def refused(rows, match, **keywords):
    with pytest.raises(ConfigError, match=match) as caught:
        table_of(rows, "runs.csv", **keywords)
    assert "\n" not in str(caught.value)


def changed(**values):
    return dataclasses.replace(ROW, **values)


def test_rows_that_cannot_be_fitted_are_refused():
    refused([], "no runs in it")
    refused(
        [ROW, changed(convention="active")],
        r"counted as active \(run a\) and as total \(run a\); fit one count at a time",
    )
    refused([ROW, changed(decay_finished=False)], "1 of 2 runs stopped before their learning rate had decayed")
    refused([changed(unique_tokens=5e9)], r"unique_tokens=5e\+09 exceed tokens=4e\+09")
    refused([changed(parameters=0.0)], "parameters=0: must be above 0")
    refused([changed(density=1.5)], "density=1.5: must be in")
    refused([changed(loss=float("nan"))], "loss=nan: must be finite")
    refused([changed(convention="weights")], "convention=weights: unknown")
    refused([changed(others={"X": 4.0}), ROW], "column X is not in every row")
    refused([ROW, ROW], "run a and run a are the same run twice")
    refused([ROW, changed(dense_start=True)], "1 of 2 runs began with the weights of a dense model")
    assert len(table_of([ROW, changed(decay_finished=False, loss=3.1)], "runs.csv", allow_undecayed=True)) == 2
    assert len(table_of([ROW, changed(dense_start=True, loss=3.1)], "runs.csv", allow_dense_starts=True)) == 2


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"tokenizer": "b"}, "runs of two tokenizers: a .* and as b"),
        ({"text": "b"}, "runs on two data sets, so measured on two texts: a .* and as b"),
        ({"unit": "bits/byte"}, "losses in two units"),
        ({"tokens_in": "steps"}, "tokens counted as two things"),
    ],
)
def test_losses_that_do_not_compare_are_refused(values, match):
    first = changed(tokenizer="a", text="a")
    refused([first, dataclasses.replace(first, loss=3.1, **values)], match)
    refused([changed(unit="bits/byte")], "losses in bits/byte; laws are of nats/token")


def test_sweeps_state_their_text_by_its_bytes_per_token(tmp_path):
    path = tmp_path / "runs.csv"
    head = "point,seed,status,active_parameters,density,unique_tokens,total_tokens,validation_loss,bits_per_byte"
    path.write_text(f"{head}\na,0,finished,1e8,1,1e9,1e9,5,2\nb,0,finished,1e8,1,1e9,1e9,6,2\n")
    with pytest.raises(ConfigError, match="it is not one text in one tokenizer"):
        table_of(read_rows(path), "runs.csv")
    path.write_text(f"{head}\na,0,finished,1e8,1,1e9,1e9,5,2\nb,0,finished,1e8,1,1e9,1e9,6,2.4\n")
    assert table_of(read_rows(path), "runs.csv").notes == ()
    rows = [changed(text="a", bytes_per_token=3.0), changed(text="a", bytes_per_token=3.1, loss=3.5)]
    assert "3 to 3.1 bytes a token" in table_of(rows, "runs.csv").notes[0]


def test_what_is_not_stated_is_said():
    rows = [changed(tokenizer="a", text="b"), changed(loss=3.1)]
    table = table_of(rows, "runs.csv", notes=("a note",))
    assert (table.tokenizer, table.text, table.notes[0]) == ("a", "b", "a note")
    assert [note[:44] for note in table.notes[1:]] == [
        "1 of 2 runs do not state their tokenizer (ru",
        "1 of 2 runs do not state their text (run a, ",
    ]


def test_the_same_run_twice_is_refused():
    exact = changed(loss=3.123456789)
    refused([exact, dataclasses.replace(exact, name="b")], "run a and run b are the same run twice, equal to the last")
    refused([exact, changed(loss=3.1234568)], "are the same run twice")
    # Seeds of one setting whose losses were rounded may be equal by chance.
    table = table_of([ROW, changed(name="b"), changed(name="c", loss=3.1)], "runs.csv")
    assert len(table.notes) == 1 and table.notes[0].startswith("1 pairs of runs are equal to the last digit (run a and")
    assert not table_of([exact, dataclasses.replace(exact, name="b", loss=3.12345678)], "runs.csv").notes


def test_a_run_whose_loss_is_no_number_is_left_out(tmp_path):
    for name, loss in (("a", 3.0), ("b", float("nan"))):
        (tmp_path / name).mkdir()
        runs.write(dataclasses.replace(RESULT, validation_loss=loss), tmp_path / name / "result.json")
    (tmp_path / "rows.csv").write_text(saved_rows([tmp_path], "rows.csv"))
    for path in (tmp_path, tmp_path / "rows.csv"):
        reading = read_file(path)
        assert [row.name for row in reading.rows] == ["a"]
        assert len(reading.notes) == 1 and "1 of 2 rows left out: their loss is not a number" in reading.notes[0]


def test_seeds_of_a_setting_share_a_group_and_the_digest_is_of_the_numbers():
    rows = [changed(group="s"), changed(group="s", loss=3.1), changed(name="b"), changed(name="c")]
    table = table_of(rows, "one.csv")
    assert table.groups.tolist() == [0, 0, 1, 2]
    assert table.digest == table_of(rows, "two.csv").digest != table_of(rows[:3], "one.csv").digest
    assert table.where(table.loss > 3.05).names == ("a",)


def test_results_of_runs(tmp_path):
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        runs.write(dataclasses.replace(RESULT, name=f"s{seed}", seed_init=seed), tmp_path / str(seed) / "result.json")
    one, two = read_rows(tmp_path)
    assert one.parameters == RESULT.active_parameters and one.convention == "active" and one.group == two.group
    assert read_rows(tmp_path / "0" / "result.json", "total_times_density")[0].parameters == 58_073_600 * 0.25
    runs.write(dataclasses.replace(RESULT, started_from="d" * 64), tmp_path / "0" / "result.json")
    begun, drawn = read_rows(tmp_path)
    assert begun.dense_start and not drawn.dense_start and begun.group != drawn.group
    with pytest.raises(ConfigError, match="--parameters=nonzero: a result states total, active"):
        read_rows(tmp_path, "nonzero")


def test_all_fields_of_runs_as_one_file(tmp_path):
    for size in ("small", "large"):
        (tmp_path / size / "seed0").mkdir(parents=True)
        result = dataclasses.replace(RESULT, name="seed0", size=size, validation_loss=0.1 + 0.2)
        runs.write(result, tmp_path / size / "seed0" / "result.json")
    table = tmp_path / "runs.csv"
    table.write_text(saved_rows([tmp_path], table))
    assert read_rows(table, "total") == read_rows(tmp_path, "total")
    assert [row.name for row in read_rows(table)] == ["large/seed0", "small/seed0"]
    assert read_rows(table)[0].loss == 0.1 + 0.2
    with pytest.raises(ConfigError, match="takes directories of finished runs"):
        saved_rows([table], tmp_path / "other.csv")
    for cell, wrong, match in (
        (",small,", ",small,x", "line 3, column total_parameters: 'x"),
        ("16x32", "16", "line 2, column block: .16. is not of type"),
        ("\n2,", "\n1,", "line 2: schema 1 is not 2"),
        ("True", "perhaps", "line 2, column decay_finished: 'perhaps' is not of type bool"),
    ):
        damaged = tmp_path / "damaged.csv"
        damaged.write_text(table.read_text().replace(cell, wrong))
        with pytest.raises(ConfigError, match=match):
            read_rows(damaged)


def test_the_table_of_a_sweep():
    rows = read_rows(Path(__file__).parents[2] / "docs" / "results" / "methods.csv")
    table = table_of(rows, "methods.csv")
    assert table.convention == "active" and len(np.unique(table.groups)) < len(table)
    assert table.columns["U"].max() <= table.columns["D"].max()


def test_tables(tmp_path):
    path = tmp_path / "t.csv"

    def read(text):
        path.write_text(text)
        return read_rows(path)

    (row,) = read(f"{OWN},group,X\na,1e8,active,4e9,1e9,0.5,3,g,8\n")
    assert (row.parameters, row.density, row.group, row.others) == (1e8, 0.5, "g", {"X": 8.0})
    (row,) = read("params,flops,tokens,loss,published_fit\n1e8,1e18,2e9,3,1\n1e8,1e18,2e9,9,0\n")
    assert (row.parameters, row.tokens, row.unique_tokens, row.convention) == (1e8, 2e9, 2e9, "total")
    assert len(read_rows(path, everything=True)) == 2
    (row,) = read("sparsity,scale,params_dense,params_nonzero,steps,loss\n0.75,1,4e6,1e6,5e5,3\n")
    assert (row.density, row.convention) == (0.25, "nonzero")
    for text, match in (
        ("a,b\n1,2\n", "its header is not known; this project's own is"),
        (f"{OWN}\na,1,weights,4e9,1e9,0.5,3\n", "line 2, column convention: weights is unknown"),
    ):
        with pytest.raises(ConfigError, match=match):
            read(text)
    for place, match in ((tmp_path / "none", "no such file"), (tmp_path, "no result.json below it")):
        with pytest.raises(ConfigError, match=match):
            read_rows(place)
