"""Whatever a setting is given, the answer is a run or one line, at once: no size is allocated or counted up to."""

import time

import pytest

from configs.llama import get_config
from sparsejax.cli.config_flag import load_run, parse_value
from sparsejax.config import RANGES, ConfigError, RunConfig, resolve
from sparsejax.files.text import printable

PLAIN = get_config("size=20m,density=0.25,block=16").to_dict()
PLAIN["data"]["source"] = "stdlib"
RUN = resolve(PLAIN)
SETTINGS = [(section, key) for section, keys in RUN.to_dict().items() for key in keys]
NUMBERS = [
    (section, key) for section, key in SETTINGS if isinstance(RUN.to_dict()[section][key], int | float | tuple | bool)
]
# A deliberate mixture: signs, bounds, spellings of numbers, and what is none.
TEXTS = [
    "0",
    "-1",
    "1e30",
    "1e-300",
    "nan",
    "inf",
    "-inf",
    "1" + "0" * 400,
    "9" * 5000,
    "999999999999999999999999999999",
    "",
    " ",
    "1_000",
    "\uff11",  # a full-width 1
    "²",
    "0x10",
    "1e400",
    "True",
    "(1e30, 1)",
    "(((((" * 1000,
    "4,4",
    "a\nb",
]
# What a config file may hold by mistake.
VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    10**400,
    "",
    "x\0",
    b"x",
    [],
    (1,),
    [1, None],
    {},
    {"a": 1},
    object(),
    len,
]


def answer(call) -> str:
    """The line of the error, or "" for a run; anything else fails."""
    begun = time.process_time()
    try:
        assert isinstance(call(), RunConfig)
        line = ""
    except ConfigError as error:
        line = printable(error)
        assert "\n" not in line and len(line) < 5000
    assert time.process_time() - begun < 1, "it counts or allocates"
    return line


def with_value(section, key, value):
    return resolve(PLAIN | {section: PLAIN[section] | {key: value}})


@pytest.mark.parametrize(("section", "key"), NUMBERS, ids=str)
def test_every_text_for_a_number(section, key):
    lines = {
        text: answer(lambda text=text: with_value(section, key, parse_value(section, key, text))) for text in TEXTS
    }
    # Another setting may be what does not fit the new value, as heads to kv_heads.
    assert all(not line or f"{section}." in line or key in line for line in lines.values())
    if not isinstance(RUN.to_dict()[section][key], bool | tuple):
        for text in ("nan", "inf", "-inf", "1e400", "1" + "0" * 400, "9" * 5000, "", " "):
            assert f"{section}.{key}=" in lines[text], text


@pytest.mark.parametrize(("section", "key"), SETTINGS, ids=str)
def test_every_value_in_a_config_file(section, key):
    for value in VALUES:
        answer(lambda value=value: with_value(section, key, value))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_as_a_flag(text):
    for setting in ("model.hidden", "seeds.data", "topology.block"):
        flag = f"--config.{setting}={text}"
        line = answer(lambda flag=flag: load_run("configs/llama.py:size=20m,density=0.25,block=16", [flag]))
        assert not line or setting in line


def test_every_number_has_bounds_that_a_machine_can_hold():
    assert {f"{section}.{key}" for section, key in NUMBERS} - set(RANGES) == {
        f"{section}.{key}" for section, key in NUMBERS if isinstance(RUN.to_dict()[section][key], bool)
    } | {"topology.rules"}
    assert all(low < high < float("inf") for low, high, _, _ in RANGES.values())


@pytest.mark.parametrize("section", PLAIN)
def test_every_value_for_a_section(section):
    for value in VALUES:
        assert section in answer(lambda value=value: resolve(PLAIN | {section: value}))
