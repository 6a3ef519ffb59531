"""Config files of users: they work wherever they are, and whatever is wrong in one is one line that names it."""

import sys
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.config import ConfigError
from sparsejax.files.text import printable

GOOD = """
from configs.base import get_config as base

def get_config():
    c = base()
    c.model.update(hidden=32, mlp=64, heads=2, kv_heads=2, head_dim=16, layers=1)
    c.topology.block = (8, 8)
    c.train.steps = 5
    return c
"""
ROOT = str(Path(__file__).resolve().parents[2])


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """As the command runs: in any directory, without the checkout on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ROOT)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["mine.py", "configs/mine.py", "configs/deep/mine.py", "a:b/my config é.py", "x.y.py"])
def test_a_config_file_works_anywhere(tmp_path, name):
    path = tmp_path / "project" / name
    path.parent.mkdir(parents=True)
    path.write_text(GOOD)
    assert load_run(str(path), []).train.steps == 5
    assert load_run(str(path), ["--config.train.steps=6"]).train.steps == 6


def test_files_beside_it_and_in_its_own_package_are_found(tmp_path):
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "__init__.py").touch()
    (configs / "shared.py").write_text("STEPS = 7\n")
    (tmp_path / "beside.py").write_text("from configs.shared import STEPS\n")
    (configs / "mine.py").write_text("from configs.shared import STEPS\n" + GOOD.replace("= 5", "= STEPS"))
    assert load_run(str(configs / "mine.py"), []).train.steps == 7
    (tmp_path / "other.py").write_text("import beside\n" + GOOD.replace("= 5", "= beside.STEPS"))
    assert load_run(str(tmp_path / "other.py"), []).train.steps == 7


def test_references_between_settings_follow_flags(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("    return c", "    c.model.mlp = c.model.get_ref('hidden') * 2\n    return c"))
    assert load_run(str(path), ["--config.model.hidden=64"]).model.mlp == 128


@pytest.mark.parametrize("returned", ["c.to_dict()", "dict(c)"])
def test_a_dict_will_do(tmp_path, returned):
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("return c", f"return {returned}"))
    assert load_run(str(path), ["--config.optim.lr=2e-3", "--config.topology.method=set"]).optim.lr == 2e-3


BODY = "def get_config():\n    "
BROKEN = {
    "": "defines no get_config()",
    "get_config = 3": "defines no get_config()",
    "def get_config(:": "line 1: SyntaxError",
    "def get_config():\n\treturn 1\n        return 2": "line 3: TabError",
    "import not_there_at_all": "ModuleNotFoundError: No module named 'not_there_at_all'",
    "from configs.nothing import x": "imports configs.nothing: it is neither beside it nor in",
    "from configs.base import nothing": "cannot import name 'nothing'",
    BODY + "pass": "returns NoneType",
    BODY + "return 3": "returns int",
    BODY + "return {}": "model: this section is missing",
    BODY + "return {'model': 3}": "model is int, and must hold settings",
    BODY + "return {3: 4, 'model': {}}": "",
    BODY + "raise RuntimeError('a\\nb')": r"line 2: RuntimeError: a\nb",
    BODY + "raise Exception": "line 2: Exception",
    BODY + "assert False": "line 2: AssertionError",
    BODY + "exit()": "line 2: SystemExit",
    BODY + "return get_config()": "line 2: RecursionError",
    BODY + "return 10**400 / 3": "line 2: OverflowError",
    BODY + "open('/nowhere/at/all')": "line 2: FileNotFoundError",
    "def get_config(a, b):\n    pass": "TypeError",
    GOOD.replace("c.train.steps = 5", "c.train.steps = 'many'"): "TypeError",
    GOOD.replace("c.train.steps = 5", "c.train.stepps = 5"): "train.stepps: unknown config key",
    GOOD.replace("c.train.steps = 5", "c.train = 5"): "",
    GOOD.replace("c.train.steps = 5", "c.lock(); c.nothing = 5"): "line 8: AttributeError",
    GOOD.replace("c.train.steps = 5", "c.model.hidden = None"): "model.hidden: no value was given",
    GOOD.replace("c.train.steps = 5", "del c.init['from']"): "init.from: no value was given",
    GOOD.replace("c.train.steps = 5", "c.init['from'] = 'x\\0'"): "init.from",
    GOOD.replace("c.train.steps = 5", "c.model.mlp = c.model.get_ref('hidden') * 'x'"): "model.mlp",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_is_one_line(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_run(str(path), [])
    line = printable(error.value)
    assert BROKEN[text] in line
    assert line.startswith(f"--config={path}") or BROKEN[text].startswith(("model", "train", "init")), line


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\0", b"x = '\xe9'"])
def test_a_file_that_is_no_text(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_run(str(path), [])


def test_without_the_shipped_configs_the_line_says_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsejax.cli.config_flag._SHIPPED", tmp_path / "site-packages" / "configs")
    (tmp_path / "mine.py").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"imports configs\.base: .*site-packages/configs"):
        load_run(str(tmp_path / "mine.py"), [])
