"""What starting a command loads: no torch and no tensorflow, and nothing heavy before a wrong key is answered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYTHING = """
import importlib, pkgutil, sparsejax
for module in pkgutil.walk_packages(sparsejax.__path__, "sparsejax."):
    if module.name != "sparsejax.interop.lm_eval_model":  # the one module of an extra that may be absent
        importlib.import_module(module.name)
"""
LIGHT = """
import sys
from sparsejax.cli.main import main
code = main(sys.argv[1:])
heavy = {"jax", "flax", "grain", "orbax", "pyarrow", "matplotlib", "tensorboard"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else code)
"""


def python(script, *arguments, **environment):
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_nothing_imports_torch(tmp_path):
    for name in ("torch", "tensorflow"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    done = python(EVERYTHING, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "--help"], 0),
        (["train", "--config=configs/quickstart.py", "--workdir=x", "--config.modell.size=3"], 2),
        (["train", "--config=configs/quickstart.py", "--workdir=x", "--config.model.sise=3"], 2),
        (["check", "--help"], 0),
    ],
)
def test_help_and_typos_load_nothing_heavy(arguments, code):
    done = python(LIGHT, *arguments)
    assert done.returncode == code, done.stderr[-500:]
