import pytest

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.config import ConfigError


def load(*overrides):
    return load_run("configs/llama.py:size=20m,density=0.25,block=16", overrides)


def test_arguments_and_overrides_reach_the_run():
    run = load("--config.optim.lr=2e-3", "--config.train.steps=1e4", "--config.data.unique_tokens=1_000_000")
    assert (run.model.size, run.topology.density, run.topology.block) == ("20m", 0.25, (16, 16))
    assert (run.optim.lr, run.train.steps, run.data.unique_tokens) == (2e-3, 10_000, 1_000_000)


@pytest.mark.parametrize("text", ["(8, 16)", "8,16"])
def test_tuples(text):
    assert load(f"--config.topology.block={text}").topology.block == (8, 16)


def test_rules_booleans_and_text():
    run = load(
        "--config.topology.rules=mlp.*=0.5,attention.q=1",
        "--config.model.tied_head=true",
        "--config.data.source=jsonl",
        "--config.data.path=books/*.jsonl.xz",
    )
    assert run.topology.rules == ("mlp.*=0.5", "attention.q=1")
    assert run.model.tied_head is True and run.data.path == "books/*.jsonl.xz"


def test_the_last_override_wins():
    assert load("--config.optim.lr=1", "--config.optim.lr=0.5").optim.lr == 0.5


def test_both_ways_of_writing_a_flag():
    assert join_values(["--config.a.b", "1", "--config.c.d=2"]) == ["--config.a.b=1", "--config.c.d=2"]


@pytest.mark.parametrize("override", ["--config.optim.lr", "--optim.lr=1", "stray"])
def test_anything_else_is_an_error(override):
    with pytest.raises(ConfigError, match="unknown flag"):
        load(override)


def test_a_method_brings_its_choices_and_later_flags_change_them():
    run = load("--config.topology.method=set")
    assert (run.topology.drop, run.topology.grow, run.optim.form, run.optim.density_exponent) == (
        "magnitude",
        "random",
        "naive",
        0.0,
    )
    static = load("--config.topology.method=static", "--config.optim.density_exponent=1")
    assert (static.topology.drop, static.topology.grow, static.optim.density_exponent) == ("none", "none", 1.0)


@pytest.mark.parametrize("seed", [2**32, -(2**31) - 1, 10**18])
def test_seeds_of_more_than_32_bits_are_refused_as_flags(seed):
    with pytest.raises(ConfigError, match=r"^seeds\.data=-?\d+: must be in \[-2147483648, 4294967295\]"):
        load(f"--config.seeds.data={seed}")
    assert load(f"--config.seeds.data={2**32 - 1}").seeds.data == 2**32 - 1
