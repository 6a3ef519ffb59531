"""docs/RESULTS.md says what its CSV files say, and the generator says it right."""

import dataclasses
import json

import pytest

from docs.results import dense_start
from docs.results.figures import FIGURES
from docs.results.tables import HERE, MARKED, RESULTS, content, render
from sparsejax.scaling.result_table import table_text
from sparsejax.training.branch_rows import rows_text
from tests.scaling.runs_test import RESULT
from tests.training.branch_rows_test import branches

RUNS = """\
point,topology.method,optim.lr,seed,status,method,validation_loss,loss_spike,seconds,tokens_per_second,reason
method=static,static,0.008,0,finished,static,4.0,0.1,30,1000,
method=static,static,0.008,1,finished,static,4.4,0.3,34,900,
method=smet,smet,0.008,0,finished,smet,3.9,0.0,40,800,
method=smet,smet,0.008,1,finished,smet,4.1,0.0,40,800,
method=set,set,0.004,0,finished,set,4.1,0.5,40,800,
method=set,set,0.004,1,failed,set,,,,,out of memory
method=static+,static,0.016,0,open,static,,,,,
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "methods.csv").write_text(RUNS)
    rows = branches("0-0-0", 20) + branches("0-0-0", 40, 3.0) + branches("1-1-1", 20, 4.0)
    (tmp_path / "branch-seed0.csv").write_text(rows_text(rows[:54]))
    (tmp_path / "branch-seed1.csv").write_text(rows_text(rows[54:]))
    return tmp_path


def test_the_committed_text_is_what_the_files_give():
    text = RESULTS.read_text(encoding="utf-8")
    assert render(text, HERE) == text, "run `make results` and commit docs/RESULTS.md"
    marked = {match["name"] for match in MARKED.finditer(text)}
    data = {path.stem.partition("-")[0] for path in HERE.glob("*.csv")}
    assert data <= marked, f"no section of docs/RESULTS.md shows {sorted(data - marked)}"


def test_methods_with_paired_differences(directory):
    lines = content("methods", directory).strip().splitlines()[2:]
    assert (
        lines[0]
        == "| method | lr | seeds | loss (nats/token) | less static | less smet | largest rise | seconds | tokens/s |"
    )
    # smet - static: -0.1 and -0.3, mean -0.2, error stdev / sqrt(2) = 0.1414 / 1.4142 = 0.1.
    assert lines[2:] == [
        "| static | 0.008 | 2 | 4.2000 ± 0.2000 |  | +0.2000 ± 0.1000 | 0.200 ± 0.100 | 32.0 ± 2.0 | 950 ± 50 |",
        "| smet | 0.008 | 2 | 4.0000 ± 0.1000 | -0.2000 ± 0.1000 |  | 0.000 ± 0.000 | 40.0 ± 0.0 | 800 ± 0 |",
        "| set | 0.004 | 1 | 4.1000 | +0.1000 | +0.2000 | 0.500 | 40.0 | 800 |",
    ]


def test_any_other_sweep_is_compared_with_its_first_line(directory):
    (directory / "methods.csv").rename(directory / "drop_rule.csv")
    lines = content("drop_rule", directory).strip().splitlines()[2:]
    assert "less first line" in lines[0] and "less smet" not in lines[0]
    assert "| -0.2000 ± 0.1000 |" in lines[3]


def test_the_branch_test_over_several_files(directory):
    text = content("branch", directory)
    assert text.startswith("\n## What a rewiring costs")
    mean, highest = text.strip().split("Highest step")
    # Means over three steps: the drop costs 2/3 of the scale, naive's cold start 1. Scales 2 (of 1 and 3) and 4.
    cells = [cell.strip() for cell in mean.strip().splitlines()[-1].strip("|").split("|")]
    assert cells[:8] == ["smet", "16x16", "0.25", "0.999", "0", "0", "2", "3"]
    assert cells[8:] == [
        "+2.0000 ± 0.6667",
        "+0.3000 ± 0.1000",
        "+3.0000 ± 1.0000",
        "+1.5000 ± 0.5000",
        "0.100 ± 0.000",
    ]
    assert "+6.0000 ± 2.0000" in highest  # naive's highest step is 2 of the scale


def test_a_section_without_a_file_is_empty_and_text_around_it_stays(directory):
    text = "# Title\n\n<!-- results:density_lr -->\nold\n<!-- /results:density_lr -->\n\nA sentence.\n"
    made = render(text, directory)
    assert made == "# Title\n\n<!-- results:density_lr -->\n<!-- /results:density_lr -->\n\nA sentence.\n"
    assert render(made, directory) == made
    with_table = render(text.replace("density_lr", "methods"), directory)
    assert "| smet | 0.008 |" in with_table and "old" not in with_table and with_table.endswith("A sentence.\n")
    assert render(with_table, directory) == with_table


def test_figures_are_equal_if_the_numbers_are(directory):
    branch = sorted(directory.glob("branch-*.csv"))
    (directory / "density_lr.csv").write_text(
        RUNS.replace("topology.method", "topology.density")
        .replace("optim.lr", "optim.density_exponent")
        .replace(",static,0", ",0.5,0")
        .replace(",smet,0", ",0.25,0")
        .replace(",set,0", ",0.125,0")
    )
    cases = {"branch": branch, "block_size": [directory / "methods.csv"], "density_lr": [directory / "density_lr.csv"]}
    for name, paths in cases.items():
        pictures = [directory / f"{name}.svg", directory / f"{name}-again.svg"]
        for picture in pictures:
            FIGURES[name](paths, picture)
        assert pictures[0].read_bytes() == pictures[1].read_bytes()
        assert b"<svg" in pictures[0].read_bytes()


def test_dense_starts_say_what_was_lost_and_what_came_back(tmp_path):
    """Dense weights of loss 5, pruned to 5.4 and trained on to 5.1: three quarters of what was lost are back."""
    runs = {"on": (1.0, "magnitude", 5.0, 4.9), "pruned": (0.5, "activation", 5.4, 5.1)}
    for name, (density, criterion, first, last) in runs.items():
        run = tmp_path / name
        run.mkdir()
        config = {
            "init": {"criterion": criterion, "distill_weight": 0.5},
            "topology": {"density": density, "method": "static", "block": [16, 16]},
            "optim": {"lr": 0.001},
        }
        (run / "config.json").write_text(json.dumps({"config": config, "steps": 200, "start_digest": "d" * 64}))
        result = {"density": density, "total_tokens": 7, "device": "cpu x 1", "versions": {"jax": "0"}}
        (run / "result.json").write_text(json.dumps(result))
        evaluations = [{"step": 0, "kind": "eval", "loss": first, "tokens": 9}]
        evaluations += [{"step": 200, "kind": "train"}, {"step": 200, "kind": "eval", "loss": last, "tokens": 9}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluations))
    rows = dense_start.rows_of([tmp_path / name for name in runs])
    assert list(rows[0]) == list(dense_start.COLUMNS) and rows[1]["dense_loss"] == "5.0"
    titles, lines = dense_start.table_lines(rows)
    assert titles[-3:] == ["after 200 steps", "brought back", "less dense, trained on"]
    assert lines[0] == ["(dense, trained on)", "1", "0.5", "5.0000", "5.0000", "", "4.9000", "", ""]
    assert lines[1] == ["activation", "0.5", "0.5", "5.0000", "5.4000", "+0.4000", "5.1000", "75%", "+0.2000"]


def test_runs_on_repeated_text_side_by_side(tmp_path):
    """Two densities on 256k tokens four times and once, and on 1M tokens once: the third column less the second."""
    losses = {(1.0, 2**18, 1): 5.5, (1.0, 2**18, 4): 5.0, (1.0, 2**20, 1): 4.8, (0.126, 2**18, 4): 5.2}
    runs = [
        dataclasses.replace(
            RESULT,
            name=f"{density}-{unique}-{epochs}",
            density=density,
            unique_tokens=unique,
            total_tokens=unique * epochs,
            epochs=float(epochs),
            validation_loss=loss,
        )
        for (density, unique, epochs), loss in losses.items()
    ]
    (tmp_path / "repeated.csv").write_text(table_text(runs))
    losses, cost = content("repeated", tmp_path).strip().split("Loss on the smaller text")
    assert losses.strip().splitlines()[2:] == [
        "| size | density | active, inner | 256k x 1 | 256k x 4 | 1M x 1 |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 60m | 1 | 6,232,000 | 5.500 | 5.000 | 4.800 |",
        "| 60m | 0.126 | 6,232,000 |  | 5.200 |  |",
    ]
    assert cost.strip().splitlines()[2:] == [
        "| size | density | 1M tokens, 4 epochs less 1 |",
        "| --- | --- | --- |",
        "| 60m | 1 | +0.200 |",
        "| 60m | 0.126 |  |",
    ]
    FIGURES["repeated"]([tmp_path / "repeated.csv"], tmp_path / "repeated.svg")
    picture = (tmp_path / "repeated.svg").read_text()
    assert "density 0.125" in picture and "256k unique tokens" in picture
