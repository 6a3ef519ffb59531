"""``sparsejax fit``: what it writes, what it says of parameters nobody knows, and one line for what is wrong."""

import csv
import dataclasses
import json

import pytest

from sparsejax.cli.main import main
from sparsejax.scaling import saved_fit
from sparsejax.scaling.fit_report import Certainty, report_lines
from sparsejax.scaling.intervals import Interval
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.studies import study
from tests.scaling.synthetic import drawn

COLUMNS = ("name", "parameters", "convention", "tokens", "unique_tokens", "density", "loss")


def write_rows(path, table):
    columns = table.columns
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, loss in enumerate(table.loss):
            D = columns["D"][i]
            writer.writerow([f"run {i}", columns["N"][i], "active", D, D, columns["S"][i], loss])
    return path


@pytest.fixture(scope="module")
def found():
    table = drawn(LAWS["chinchilla"], noise=0.01)
    asked = {"staged": False, "starts": 32, "samples": 32, "level": 0.95, "seed": 0, "command": "a test"}
    return study([LAWS["chinchilla"]], table, fixed={}, free_held=(), delta=None, **asked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    rows = write_rows(folder / "runs.csv", drawn(LAWS["chinchilla"], noise=0.01))
    flags = [f"--rows={rows}", f"--out={folder / 'out'}", "--law=chinchilla", "--bootstrap=100"]
    assert main(["fit", *flags]) == 0
    return folder / "out"


def test_three_files_that_agree(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["fit.json", "report.md", "residuals.png"]
    document, report = json.loads((folder / "fit.json").read_text()), (folder / "report.md").read_text()
    for name, value in document["values"].items():
        interval = document["intervals"][name]
        assert interval["bootstrap"][0] < value < interval["bootstrap"][1]
        assert interval["identified"] and f"| {name} | {value:.4g} |" in report
    for name, term in document["terms"].items():
        assert term["bootstrap"][0] < term["value"] < term["bootstrap"][1]
        assert f"| {name} with its powers at {'N' if name == 'A' else 'D'} = " in report
    assert document["runs"] == 25 and document["ranges"]["epochs"] == [1.0, 1.0] and len(document["digest"]) == 64
    assert document["command"].startswith("sparsejax fit --rows=") and document["command"] in report
    assert document["delta"] == pytest.approx(1.345 * document["scale"], rel=0.3)
    assert {one["split"] for one in document["held_out"]} == {"largest", "5 folds"}
    assert "estimates that move together: A and alpha" in report
    assert (folder / "residuals.png").read_bytes()[:4] == b"\x89PNG"


def test_advice_reads_the_fit(folder, capsys):
    known = saved_fit.read(folder / "fit.json")
    assert known.count == 100 and known.convention == "active" and known.law is LAWS["chinchilla"]
    assert main(["advise", "--unique-tokens=2e10", "--flops=1e20", f"--fit={folder / 'fit.json'}"]) == 0
    shown = capsys.readouterr().out
    assert "law chinchilla" in shown and "epochs  (90 %: " in shown and "there is no sparse choice" in shown


def test_what_is_not_identified_is_marked(found):
    low, high = Interval(1.0, 2.0), Interval(1.5, float("inf"))
    certainty = found.certainty | {"A": Certainty(low, high), "B": Certainty(Interval(-1.0, 1.0), low)}
    report = "\n".join(report_lines(dataclasses.replace(found, certainty=certainty)))
    values = found.fit.values
    assert f"| A | {values['A']:.4g} (not identified) | 1 to 2 | 1.5 to unbounded |" in report
    assert "- A is not identified: 1 to unbounded fit alike" in report
    assert f"| B | {values['B']:.4g} (not told from 0) | -1 to 1 | 1 to 2 |" in report
    assert f"| alpha | {values['alpha']:.4g} |" in report


def test_warnings(found):
    minima = (found.fit.minima[0], dataclasses.replace(found.fit.minima[0], objective=found.fit.objective * 1.001))
    fit = dataclasses.replace(found.fit, minima=minima, agreement=0.01)
    told = dataclasses.replace(found.diagnostics, seed_scale=found.fit.scale / 10)
    report = "\n".join(report_lines(dataclasses.replace(found, fit=fit, diagnostics=told)))
    assert "another minimum is 0.100% higher: E 1." in report
    assert "only 1% of the starts agree" in report and "the law misses the runs" in report


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--law=kaplan"], "--law=kaplan: unknown"),
        (["--law=chinchilla", "--fix=gamma=1"], "--fix=gamma=1: no such parameter"),
        (["--law=chinchilla", "--fix=E=many"], "--fix=E=many: must be <parameter>=<number>"),
        (["--law=chinchilla", "--fix=E=1,E=2"], "--fix=E=1,E=2: E is given twice"),
        (["--law=chinchilla", "--fix=alpha=-1"], "--fix=alpha=-1: law chinchilla: must be above 0"),
        (["--law=overfitting", "--free=L0", "--fix=L0=9"], "--free=L0: --fix gives it a value"),
        (["--law=chinchilla", "--against=chinchilla"], "--against=chinchilla: name different laws"),
        (["--law=chinchilla", "--seed=-1"], "--seed=-1: must be at least 0"),
        (["--law=chinchilla", "--starts=0"], "--starts=0: must be from 1 to"),
        (["--law=chinchilla", "--bootstrap=100000000"], "--bootstrap=100000000: must be from 100 to"),
        (["--law=chinchilla", "--delta=-1"], "--delta=-1: must be auto, papers or a number"),
        (["--law=chinchilla", "--bootstrap=5"], "--bootstrap=5: must be from 100 to"),
        (["--law=chinchilla", "--level=5"], "--level=5: must be in"),
        (["--law=chinchilla", "--stages"], "--stages: only sparse_repeated has stages"),
        (["--law=experts"], "it reads X"),
        (["--law=chinchilla", "--free=E"], "--free=E: law chinchilla holds nothing"),
        (["--law=overfitting", "--free=lam"], "--free=lam: law overfitting holds L0"),
        (["--law=sparse_repeated"], "no run depends on"),
    ],
)
def test_wrong_flags_are_one_line(folder, flags, match, capsys):
    rows = folder.parent / "runs.csv"
    assert main(["fit", f"--rows={rows}", f"--out={folder.parent / 'none'}", *flags]) == 2
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1 and not (folder.parent / "none").exists()


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["fit", f"--rows={tmp_path / 'none.csv'}", f"--out={tmp_path / 'out'}"]) == 2
    assert "no such file or directory" in capsys.readouterr().err
