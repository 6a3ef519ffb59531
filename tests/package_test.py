"""The project as others get it: the wheel builds and runs elsewhere, and every dependency is declared and pinned."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sparsejax

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUN = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
ROOMS = sorted(path.parent.name for path in (ROOT / "sparsejax").glob("*/__init__.py"))


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, without what this process put on the import path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing lands in the working tree, without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "sparsejax", source / "sparsejax", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"sparsejax/{room}/__init__.py" for room in ROOMS} | {"sparsejax/py.typed"} <= set(names)
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sparsejax").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == shipped
    metadata = f"sparsejax-{sparsejax.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"sparsejax", metadata}
    assert f"{metadata}/licenses/LICENSE" in names


def test_the_wheel_runs_in_another_environment(wheel: Path, tmp_path: Path) -> None:
    """Only sparsejax is installed there; its dependencies are borrowed from this environment."""
    run(sys.executable, "-m", "venv", "--without-pip", "other", cwd=tmp_path)
    python = tmp_path / "other" / "bin" / "python"
    (site,) = (tmp_path / "other" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    assert "train" in run(python.with_name("sparsejax"), "--help", cwd=tmp_path)
    where = run(python, "-c", "import sparsejax; print(sparsejax.__version__, sparsejax.__file__)", cwd=tmp_path)
    assert where.split() == [sparsejax.__version__, str(site / "sparsejax" / "__init__.py")]


@pytest.mark.parametrize("requirement", [*RUN, *(line for lines in EXTRAS.values() for line in lines)], ids=str)
def test_every_dependency_has_a_floor_and_a_cap(requirement: Requirement) -> None:
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="]


@pytest.mark.parametrize("python", ["py311", "py312"])
def test_the_pins_are_what_the_project_allows(python: str) -> None:
    lines = (ROOT / "constraints" / f"{python}.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*", line)] == []
    versions = dict(line.split("==") for line in pinned)
    for requirement in RUN + EXTRAS["test"]:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def third_party(folder: str) -> Iterator[str]:
    """Top-level names that the files of a folder import and that are neither ours nor the standard library's."""
    ours = {"sparsejax", "configs", "tests", "benchmarks", "docs", "launch"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from ({name.split(".")[0] for name in names} - ours - sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("sparsejax", ["hf", "lm_eval"]),
        ("configs", []),
        ("benchmarks", []),
        ("docs", []),
        ("launch", []),
        ("tests", ["test", "hf"]),
    ],
)
def test_every_import_is_a_declared_dependency(folder: str, extras: list[str]) -> None:
    declared = {canonicalize_name(line.name) for line in RUN + [line for name in extras for line in EXTRAS[name]]}
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for name in set(third_party(folder)):
        homes = {canonicalize_name(home) for home in (distributions[name] if name in distributions else [name])}
        if not homes & declared:
            undeclared.add(name)
    assert undeclared == set()
