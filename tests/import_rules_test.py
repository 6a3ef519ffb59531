"""The rules of the house: who may import whom, what a room may pull in, and how long a file or function may be.

The tables are those of docs/ARCHITECTURE.md. Every file is parsed, so imports inside functions count too; what the
interpreter really loads is checked in processes of their own.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sparsejax"

# Room -> what it may import besides itself and FOR_ALL. A name with a dot is one module, not its room.
MAY_IMPORT: dict[str, set[str]] = {
    "config": {"legal_values", "combinations", "sections"},
    "combinations": {"sections"},
    "sections": set(),
    "legal_values": set(),
    "hardware": set(),
    "files": {"config"},
    "topology": set(),
    "data": set(),
    "kernels": {"topology.blocks", "topology.bcoo", "topology.concatenate"},
    "models": {"kernels", "topology"},
    "optim": {"topology"},
    "scaling": {"models.sizes", "models.accounting"},
    "training": {"models", "optim", "topology", "data", "kernels", "scaling.runs"},
    "inference": {"models", "kernels", "topology", "data.tokenizer", "training.checkpoint"},
    "interop": {
        "inference",
        "models",
        "topology",
        "data",
        "training.checkpoint",
        "training.evaluate",
        "training.metrics",
        "training.provenance",
        "training.restore",
        "training.workdir",
    },
    "planning": {
        "topology",
        "training",
        "models",
        "scaling.runs",
        "data.open_set",
        "data.tokenizer",
        "interop.dense_checkpoint",
    },
    "cli": {
        "topology",
        "data",
        "kernels",
        "models",
        "optim",
        "scaling",
        "training",
        "inference",
        "interop",
        "planning",
    },
}
FOR_ALL = {"config", "files", "hardware"}

FRAMEWORKS = {"grain", "ml_collections", "orbax", "tensorboard"}
# Room or folder -> third-party packages it never imports.
NEVER_IMPORTS: dict[str, set[str]] = {
    "topology": FRAMEWORKS | {"flax", "optax"},
    "kernels": FRAMEWORKS,
    "models": FRAMEWORKS,
    "optim": FRAMEWORKS,
    "benchmarks": FRAMEWORKS,
    "scaling": {"flax"},
    "config": {"jax", "flax", "ml_collections"},
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = re.compile(r"^(utils?|commons?|helpers?|misc)$|_(utils?|commons?|helpers?|misc)$")
CONFIG_NAMES = re.compile(r"(^|_)(config|cfg|settings|options|section)s?$")

PACKAGE_FILES = sorted(PACKAGE.rglob("*.py"))
FILES = sorted(
    path
    for folder in ("sparsejax", "tests", "configs", "benchmarks", "launch", "docs", "constraints")
    for path in (ROOT / folder).rglob("*.py")
)


def room_of(path: Path) -> str:
    """First folder below the package, or the file's own name for a file beside the rooms."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Full dotted names of all imports anywhere in the tree; a relative import keeps its leading dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from (f"{source}.{alias.name}" for alias in node.names)


def broken_room_imports(room: str, tree: ast.AST) -> list[str]:
    """Imports inside the project that the table does not allow to ``room``."""
    found = []
    for name in imported(tree):
        top, *inner = name.split(".")
        if name.startswith("."):
            found.append(f"{name}: relative imports hide the room")
        elif top == "sparsejax" and inner and inner[0] in MAY_IMPORT:
            allowed = MAY_IMPORT[room] | {room} | (FOR_ALL if room not in FOR_ALL else set())
            if not allowed & {inner[0], ".".join(inner[:2])}:
                found.append(name)
        elif top == "sparsejax" and inner and inner[0] != "__version__":
            found.append(f"{name}: not a room of the table")
    return found


def private_names(tree: ast.AST) -> list[str]:
    """Imports and attributes that reach into a library's ``_src``."""
    names = [name for name in imported(tree) if "._src" in name]
    return names + [
        ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "_src"
    ]


def reads_with_get(tree: ast.AST) -> list[str]:
    """Calls of ``.get`` on something named like a config: a default hidden where nobody looks for it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            chain = re.split(r"\W+", ast.unparse(node.func.value))
            if any(CONFIG_NAMES.search(part) for part in chain):
                found.append(ast.unparse(node))
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | files <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=shown)
def test_rooms_import_one_way(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert list(imported(parse(path))) == []
    else:
        assert broken_room_imports(room_of(path), parse(path)) == []


@pytest.mark.parametrize("room", NEVER_IMPORTS)
def test_rooms_stay_free_of_frameworks(room: str) -> None:
    folder = ROOT / room if room == "benchmarks" else PACKAGE / room
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    broken = [
        f"{shown(path)}: {name}"
        for path in files
        for name in imported(parse(path))
        if name.split(".")[0] in NEVER_IMPORTS[room]
    ]
    assert broken == []


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_files_keep_the_style(path: Path) -> None:
    tree = parse(path)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: split the file by its ideas"
    assert not EMPTY_NAMES.search(path.stem.removesuffix("_test")), "a file is named after what it holds"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name}: {length} lines"
    assert private_names(tree) == []
    if "tests" not in path.relative_to(ROOT).parts:
        assert reads_with_get(tree) == []


def test_room_init_files_are_empty() -> None:
    full = [shown(path) for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE and path.stat().st_size]
    assert full == [], "importing one module must not load its room"


def loaded_after(imports: list[str]) -> set[str]:
    """Top-level packages and sparsejax modules in ``sys.modules`` of a new process after these imports."""
    code = f"import importlib, json, sys\nfor name in {imports!r}: importlib.import_module(name)\n"
    code += "print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(*rooms: str) -> list[str]:
    files = [path for room in rooms for path in sorted((PACKAGE / room).glob("*.py"))]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def test_topology_loads_no_framework() -> None:
    assert loaded_after(modules_of("topology")) & (FRAMEWORKS | {"flax", "optax"}) == set()


def test_kernels_models_and_optim_load_no_framework() -> None:
    loaded = loaded_after(modules_of("kernels", "models", "optim"))
    assert loaded & FRAMEWORKS == set()
    assert not {name for name in loaded if re.match(r"sparsejax\.(training|data|cli|scaling|inference)\.", name)}


def test_scaling_loads_neither_flax_nor_the_trainer():
    loaded = loaded_after(modules_of("scaling", "scaling/laws"))
    assert loaded & (FRAMEWORKS | {"flax", "optax"}) == set()
    assert not {name for name in loaded if re.match(r"sparsejax\.(training|data|cli|kernels|topology)\.", name)}


@pytest.mark.parametrize("name", ["sparsejax.models.sizes", "sparsejax.models.accounting", "sparsejax.scaling.runs"])
def test_numbers_need_no_jax(name: str) -> None:
    assert loaded_after([name]) & {"jax", "flax", "numpy", "sparsejax.training"} == set()


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("topology", "from sparsejax.optim import sparse_adam"),
        ("topology", "import sparsejax.kernels.api"),
        ("kernels", "from sparsejax.topology import rewire"),
        ("kernels", "from sparsejax.topology.rewire import rewire"),
        ("kernels", "def f():\n    from sparsejax.models import llama"),
        ("scaling", "from sparsejax.models.llama import Llama"),
        ("scaling", "from sparsejax.training import loop"),
        ("config", "from sparsejax.models import sizes"),
        ("optim", "from ..topology import rewire"),
        ("data", "from sparsejax.unheard import something"),
    ],
)
def test_the_import_rule_catches(room: str, line: str) -> None:
    assert broken_room_imports(room, ast.parse(line))


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("kernels", "from sparsejax.topology import blocks"),
        ("kernels", "from sparsejax.topology.blocks import BlockSparse"),
        ("kernels", "from sparsejax.kernels import xla"),
        ("data", "from sparsejax.config import ConfigError"),
        ("scaling", "from sparsejax.models import sizes"),
        ("cli", "from sparsejax import __version__"),
        ("optim", "import jax.numpy as jnp"),
    ],
)
def test_the_import_rule_allows(room: str, line: str) -> None:
    assert broken_room_imports(room, ast.parse(line)) == []


def test_the_other_rules_catch() -> None:
    assert private_names(ast.parse("from jax._src import core")) and private_names(ast.parse("jax._src.core.x"))
    assert reads_with_get(ast.parse("config.optim.get('lr', 1.0)")) and reads_with_get(ast.parse("cfg.get('lr')"))
    assert not reads_with_get(ast.parse("totals.get(name, 0)"))
    assert all(EMPTY_NAMES.search(name) for name in ("utils", "data_utils", "helpers", "common", "misc"))
    assert not EMPTY_NAMES.search("commonality")
