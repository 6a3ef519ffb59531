"""The notebooks run, and each pair of files holds the same cells, without outputs."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.scaling import runs
from tests.scaling.runs_test import RESULT

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells_of(script):
    """``(kind, text)`` of every cell of a percent script; the part before the first is its header."""
    _, *parts = CELL.split(script)
    for marker, text in zip(parts[::2], parts[1::2], strict=True):
        lines = text.strip("\n").split("\n")
        yield ("markdown", "\n".join(line[2:] for line in lines)) if marker else ("code", "\n".join(lines))


def test_all_six_are_there():
    names = ["fit_law", "inspect_a_run", "isoflop", "isoloss", "optimal_sparsity", "repeated_data"]
    assert [path.stem for path in SCRIPTS] == names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_pairs_agree_and_hold_no_outputs(path):
    notebook = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert found == list(cells_of(path.read_text(encoding="utf-8")))
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in notebook["cells"] if "outputs" in cell
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    runs.write(dataclasses.replace(RESULT, name="tiny"), tmp_path / "result.json")
    lines = [json.dumps({"step": step, "kind": "train", "loss_mean": 5 - 0.01 * step}) for step in range(10)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("SPARSEJAX_RUN", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("SPARSEJAX_ROWS", raising=False)
    code = "\n".join(text for kind, text in cells_of(path.read_text(encoding="utf-8")) if kind == "code")
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
