"""Every shipped config resolves, base.py holds every field, and nothing a user did not ask for changes silently.

The resolved configs are pinned in tests/golden/configs. When a default or a preset is changed on purpose, and
CHANGELOG.md says so, write them again with `python -m tests.configs_test`.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from ml_collections import ConfigDict

from sparsejax.cli.config_flag import load_run
from sparsejax.config import CHOICES, FREE_ON_RESUME, RANGES, ConfigError, RunConfig, resolve
from sparsejax.models.sizes import SIZES
from sparsejax.sections import key_of
from sparsejax.topology.methods import METHODS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GOLDEN = Path(__file__).resolve().parent / "golden" / "configs"
PLACEHOLDERS = {f"model.{name}" for name in ("hidden", "mlp", "heads", "kv_heads", "head_dim", "layers")}

# Configs with an argument: golden name -> file and argument. All other files take none and are found by themselves;
# ablations and papers, which say what they change, are pinned by that (tests/configs).
WITH_ARGUMENT = {
    "llama-20m": ("llama.py", "size=20m,density=0.25,block=16"),
    "llama-60m-dense": ("llama.py", "size=60m,method=dense"),
    "llama-130m-static": ("llama.py", "size=130m,density=0.5,block=16x32,method=static"),
    "llama-1b-smet-code": ("llama.py", "size=1b,density=0.0625,block=1,method=smet_code"),
    "c4-60m": ("c4.py", "size=60m,density=0.25"),
    "llama-3b84-shares": ("llama.py", "size=3b84,density=0.125,block=128,shards=4,balance=column"),
}


def shipped() -> dict[str, tuple[str, str | None]]:
    """Golden name -> (file, argument) of every shipped config that is complete."""
    alone = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("*.py")} - {"base.py", "llama.py", "c4.py"}
    return WITH_ARGUMENT | {name.removesuffix(".py").replace("/", "-"): (name, None) for name in sorted(alone)}


def load(name: str, argument: str | None = None) -> ConfigDict:
    """The config a file gives, before it is resolved."""
    spec = importlib.util.spec_from_file_location("loaded_config", CONFIGS / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config() if argument is None else module.get_config(argument)
    assert isinstance(config, ConfigDict)
    return config


def flat(config: ConfigDict) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, values in config.items() for key, value in values.items()}


def resolved(name: str) -> str:
    """The golden text of a config, read as the command line reads it."""
    file, argument = shipped()[name]
    flag = f"{CONFIGS / file}" if argument is None else f"{CONFIGS / file}:{argument}"
    return json.dumps(load_run(flag, []).to_dict(), indent=2) + "\n"


def update() -> None:
    """Write all golden configs, and remove those that no config stands behind."""
    for path in GOLDEN.glob("*.json"):
        path.unlink()
    for name in shipped():
        (GOLDEN / f"{name}.json").write_text(resolved(name), encoding="utf-8")


@pytest.mark.parametrize("name", shipped())
def test_golden(name: str) -> None:
    advice = (
        f"the resolved config {name} changed; if a default or preset was changed on purpose, say so in CHANGELOG.md "
        "and run `python -m tests.configs_test`"
    )
    path = GOLDEN / f"{name}.json"
    assert path.is_file() and json.loads(resolved(name)) == json.loads(path.read_text(encoding="utf-8")), advice


def test_every_golden_config_is_shipped() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(shipped())


def test_base_has_exactly_the_fields_of_the_dataclasses() -> None:
    sections = get_type_hints(RunConfig)
    fields = {
        f"{section}.{key_of(field.name)}" for section in sections for field in dataclasses.fields(sections[section])
    }
    assert set(flat(load("base.py"))) == fields


def test_limits_name_existing_fields() -> None:
    assert set(CHOICES) | set(RANGES) | FREE_ON_RESUME <= set(flat(load("base.py")))


def test_base_has_no_default_only_for_the_sizes() -> None:
    assert {key for key, value in flat(load("base.py")).items() if value is None} == PLACEHOLDERS
    with pytest.raises(ConfigError, match=r"^model\.hidden: no value was given; set it with --config\.model\.hidden"):
        resolve(load("base.py"))


@pytest.mark.parametrize("name", shipped())
def test_every_value_can_be_changed_on_the_command_line(name: str) -> None:
    """ml_collections can override neither None nor a list."""
    assert not {key for key, value in flat(load(*shipped()[name])).items() if value is None or isinstance(value, list)}


def test_every_field_says_what_it_is() -> None:
    lines = [
        line
        for line in (CONFIGS / "base.py").read_text(encoding="utf-8").splitlines()
        if line.startswith(("    c.", "    c["))
    ]
    assert len(lines) == len(flat(load("base.py")))
    silent = [line for line in lines if len(line.partition("  # ")[2]) < 10]
    assert silent == []


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_listed_beside_its_field(name: str) -> None:
    section, field = name.split(".")
    text = (CONFIGS / "base.py").read_text(encoding="utf-8").partition(f"def {section}()")[2]
    above, _, line = text.partition(f"    c.{field} = ")
    comment = line.partition("\n")[0].partition("  # ")[2]
    for before in reversed(above.splitlines()):
        if not before.startswith("    # "):
            break
        comment = before + comment
    if name == "topology.method":
        assert "sparsejax/topology/methods.py" in comment
        return
    assert [choice for choice in CHOICES[name] if choice not in comment] == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_every_size_and_method_resolves(size: str, method: str) -> None:
    run = resolve(load("llama.py", f"size={size},method={method}"))
    assert (run.model.hidden, run.model.layers) == (SIZES[size].hidden, SIZES[size].layers)
    assert run.model.heads * run.model.head_dim == run.model.hidden
    chosen = run.to_dict()
    assert METHODS[method].topology.items() <= chosen["topology"].items()
    assert METHODS[method].optim.items() <= chosen["optim"].items()
    assert run.topology.density == {"dense": 1.0, "galore": 1.0, "sr_ste": 0.5}.get(method, 0.25)


@pytest.mark.parametrize(
    ("argument", "block", "method"),
    [
        ("size=20m", (16, 16), "smet"),
        ("size=20m,block=1", (1, 1), "smet"),
        ("size=20m,block=16x32,method=set", (16, 32), "set"),
        ("size=20m,density=1", (16, 16), "dense"),
        (" size = 20m , density = 0.5 ,", (16, 16), "smet"),
    ],
)
def test_llama_reads_its_argument(argument: str, block: tuple[int, int], method: str) -> None:
    run = resolve(load("llama.py", argument))
    assert (run.topology.block, run.topology.method) == (block, method)


def test_widths_keep_the_active_weights() -> None:
    """In blocks of 32, 20m has the MLP width 704. Twice the widths have four times the weights, half a quarter."""
    wide = resolve(load("llama.py", "size=20m,density=0.25,block=32,widths=sparse_ift"))
    assert (wide.model.size, wide.model.hidden, wide.model.mlp, wide.model.heads) == ("20m-wide", 512, 1408, 8)
    assert (wide.topology.density, wide.topology.method, wide.optim.lr) == (0.25, "smet", 1.95e-3)
    for argument in ("size=20m,density=0.25,block=32,widths=same_active", "size=20m,block=32,widths=same_active"):
        narrow = resolve(load("llama.py", argument))
        shape = (narrow.model.size, narrow.model.hidden, narrow.model.mlp, narrow.model.kv_heads, narrow.model.layers)
        assert shape == ("20m-narrow", 128, 352, 2, 4)
        assert (narrow.topology.density, narrow.topology.method) == (1.0, "dense")


@pytest.mark.parametrize("method", ["sr_ste", "monarch"])
def test_storages_without_blocks_need_none_that_divide(method: str) -> None:
    assert resolve(load("llama.py", f"size=20m,method={method},block=100,shards=3")).topology.block == (100, 100)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "size is missing: configs/llama.py:size=<one of 60m,"),
        ("size=21m", "size=21m: not one of 60m,"),
        ("sise=20m", "sise: not an argument of configs/llama.py, which takes size, density, block, method,"),
        ("size", "size: write every argument once, as size=<value>"),
        ("size=20m,size=60m", "size=60m: write every argument once"),
        ("size=20m,block=16x32x64", "block=16x32x64: write a block as 16 or 16x32"),
        ("size=20m,block=big", "block=big: write a block as 16 or 16x32"),
        ("size=20m,density=half", "density=half: not a number of type float"),
        ("size=20m,shards=1.5", "shards=1.5: not a number of type int"),
        ("size=20m,method=ringl", "method=ringl: not one of dense, static, set"),
        ("size=20m,method=dense,density=0.5", "topology.density=0.5: the method 'dense' needs density 1"),
        ("size=20m,widths=wide", "widths=wide: not one of given, sparse_ift, same_active"),
        ("size=20m,method=smet,widths=same_active", "method=smet: widths=same_active is a dense run"),
        ("size=20m,density=0.01,widths=same_active", "widths=same_active: 20m has 4 heads of 64: too few for 0.01"),
    ],
)
def test_llama_refuses_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(load("llama.py", argument))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


if __name__ == "__main__":
    update()
