"""Tables as people save them: a table is the same in every dialect, and errors name line and column."""

import csv
import io
import itertools

import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling.rows import ScalingRow
from sparsejax.scaling.tables import read_file, read_rows

HEADER = ["name", "parameters", "convention", "tokens", "unique_tokens", "density", "loss"]
ROWS = [
    ["a, b", "1e8", "active", "4e9", "1e9", "0.5", "3.25"],
    ['the "best"', "2E+8", "active", "8e9", "1e9", "1", "3"],
]
WANTED = [
    ScalingRow("a, b", 1e8, "active", 4e9, 1e9, 0.5, 3.25),
    ScalingRow('the "best"', 2e8, "active", 8e9, 1e9, 1.0, 3.0),
]


def saved(path, rows, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n", space="", encoding="utf-8", first=""):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows(rows)
    content = text.getvalue()
    if space:
        # Spaces stand around the separators of the header, where no name holds one.
        head, _, rest = content.partition(end)
        before = "" if quoting == csv.QUOTE_ALL else space
        content = head.replace(separator, f"{before}{separator}{space}") + end + rest
    path.write_bytes((first + content).encode(encoding))
    return path


DIALECTS = itertools.product(
    ",;\t", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ("\n", "\r\n", "\r"), ("", " "), ("utf-8", "utf-8-sig"), (False, True)
)


def test_every_dialect_is_the_same_table(tmp_path):
    for separator, quoting, end, space, encoding, trailing in DIALECTS:
        tail = [""] * 2 if trailing else []
        rows = [[*HEADER, *tail], [*ROWS[0], *tail], [""] * len(HEADER), [*ROWS[1], *tail], []]
        path = saved(tmp_path / "t.csv", rows, separator, quoting, end, space, encoding)
        assert read_rows(path) == WANTED, (separator, quoting, end, space, encoding, trailing)
    assert read_rows(saved(tmp_path / "t.csv", [HEADER, *ROWS], ";", first="sep=;\r\n")) == WANTED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252", "utf-16-le"])
def test_other_encodings_are_one_line(tmp_path, encoding):
    rows = [HEADER, ["modèle", *ROWS[0][1:]]]
    with pytest.raises(ConfigError) as caught:
        read_rows(saved(tmp_path / "t.csv", rows, encoding=encoding))
    assert "\n" not in str(caught.value) and "t.csv" in str(caught.value)


def changed(column, cell):
    return [HEADER, ROWS[0], [cell if name == column else old for name, old in zip(HEADER, ROWS[1], strict=True)]]


NUMBERS = ("parameters", "tokens", "unique_tokens", "density", "loss")
CELLS = [
    *itertools.product(NUMBERS, ("", " ", "x", "nan", "NaN", "inf", "-inf", "1_000", "0x1", "1e999", "3,14", "1 000")),
    *itertools.product(("parameters", "tokens", "unique_tokens", "density"), ("0", "-1", "-0.5")),
    ("density", "1.5"),
    ("density", "25"),
    ("name", ""),
    ("convention", ""),
    ("convention", "weights"),
]


def test_every_wrong_cell_is_named_by_line_and_column(tmp_path):
    for separator in ",;\t":
        for column, cell in CELLS:
            with pytest.raises(ConfigError, match=rf"t\.csv: line 3, column {column}: ") as caught:
                read_rows(saved(tmp_path / "t.csv", changed(column, cell), separator))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "is empty"),
        ([HEADER[:-1], ROWS[0][:-1]], "its header is not known.*loss is missing"),
        ([[*HEADER, "loss"], [*ROWS[0], "3"]], "line 1: two columns are called 'loss'"),
        ([[*HEADER, " loss "], [*ROWS[0], "3"]], "line 1: two columns are called 'loss'"),
        ([HEADER, ROWS[0][:-1]], "line 2: has 6 cells, but there are 7 columns; the cell of column loss is missing"),
        ([HEADER, [*ROWS[0], "7"]], "line 2, column 8: '7' stands under no column name"),
        ([[*HEADER, ""], [*ROWS[0], "7"]], "line 2, column 8: '7' stands under no column name"),
        ([HEADER, ROWS[0], ["a\nb", "x", *ROWS[1][2:]]], "line 3, column parameters"),
        ([HEADER, [*ROWS[0][:2], "active", "4", "1", "0.5", "3"]], "line 2: tokens=4 are fewer than 10,000"),
        ([HEADER, ["a", "0.1", "active", "4", "1", "0.5", "3"]], "line 2: parameters=0.1 are fewer .* billions"),
        ([HEADER, [*ROWS[0][:-1], "25.6"]], "line 2: loss=25.6 is above .* is it a perplexity"),
        ([HEADER, ["a", "7e9", "active", "1.4e5", "1.4e5", "0.5", "3"]], "line 2: parameters=7e.09 beside tokens"),
    ],
)
def test_every_wrong_shape_is_one_line(tmp_path, rows, match):
    with pytest.raises(ConfigError, match=match) as caught:
        read_rows(saved(tmp_path / "t.csv", rows))
    assert "\n" not in str(caught.value)


def test_a_quote_without_an_end_is_one_line(tmp_path):
    path = saved(tmp_path / "t.csv", [HEADER, *ROWS])
    path.write_text(path.read_text() + '"open,1e8')
    with pytest.raises(ConfigError, match="line 4: is not CSV"):
        read_rows(path)


def test_what_is_not_taken_is_counted(tmp_path):
    path = saved(tmp_path / "t.csv", [[*HEADER, "note", "X", "D"], [*ROWS[0], "node 3", "8", "7"]])
    reading = read_file(path)
    assert reading.rows[0].others == {"X": 8.0} and reading.notes == ("t.csv: columns that nothing reads: note, D",)
    sweep = "point,seed,status,active_parameters,density,unique_tokens,total_tokens,validation_loss\n"
    path.write_text(f"{sweep}a,0,finished,1e8,1,1e9,1e9,3\na,1,failed,1e8,1,1e9,1e9,\nb,1,failed,1e8,1,1e9,1e9,4\n")
    reading = read_file(path)
    assert len(reading.rows) == 1
    assert reading.notes == ("t.csv: 2 of 3 rows left out: runs that are not finished; --all-rows takes them",)
    with pytest.raises(ConfigError, match="line 3, column validation_loss: is empty"):
        read_file(path, everything=True)
