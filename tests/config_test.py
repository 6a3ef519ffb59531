"""What a user may write in a config, and the one line that answers anything else."""

import json
from typing import Any

import pytest

from configs.base import get_config
from sparsejax.config import FREE_ON_RESUME, ConfigError, RunConfig, differing_keys, resolve

SIZES = {"hidden": 96, "mlp": 256, "heads": 6, "kv_heads": 3, "head_dim": 16, "layers": 2}


def changed(**changes: Any) -> dict[str, Any]:
    """A legal config as a plain mapping with some values replaced, ``section__key=value``."""
    config = get_config().to_dict()
    config["model"] |= SIZES
    for name, value in changes.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    return config


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(config)
    return str(error.value)


def test_a_legal_config_keeps_every_value():
    run = resolve(changed())
    assert isinstance(run, RunConfig)
    assert run.model.hidden == 96 and run.topology.block == (16, 16)
    assert json.loads(json.dumps(run.to_dict())) == json.loads(json.dumps(changed()))
    assert resolve(run.to_dict()) == run


def test_a_key_may_be_a_word_that_python_keeps_for_itself():
    run = resolve(changed(init__from="runs/dense", init__feature_weight=0.5))
    assert run.init.from_ == "runs/dense" and run.init.distills
    assert run.to_dict()["init"]["from"] == "runs/dense" and "from_" not in run.to_dict()["init"]
    assert resolve(json.loads(json.dumps(run.to_dict()))) == run
    assert differing_keys(changed(), run.to_dict()) == ["init.feature_weight: 0.0 -> 0.5", "init.from:  -> runs/dense"]
    assert refused(changed(init__from_="x")) == "init.from_: unknown config key; did you mean init.from?"


def test_numbers_take_the_type_of_their_field():
    run = resolve(changed(optim__lr=1, data__unique_tokens=1e6, topology__block=[8, 16]))
    assert type(run.optim.lr) is float and run.optim.lr == 1.0
    assert type(run.data.unique_tokens) is int and run.data.unique_tokens == 1_000_000
    assert run.topology.block == (8, 16)


def test_unknown_sections_and_keys_name_the_nearest():
    config = changed()
    config["topologie"] = {}
    assert refused(config) == "topologie: unknown config key; did you mean topology?"
    assert refused(changed(topology__densty=0.5)) == (
        "topology.densty: unknown config key; did you mean topology.density?"
    )
    line = refused(changed(seeds__xyz=1))
    assert line == "seeds.xyz: unknown config key; legal keys: init, topology, data"


def test_a_missing_section_key_or_value_says_how_to_give_it():
    config = changed()
    del config["seeds"]
    assert refused(config) == "seeds: this section is missing; start from configs/base.py"
    config = changed()
    del config["optim"]["lr"]
    assert refused(config) == "optim.lr: no value was given; set it with --config.optim.lr=..."
    # A size that base.py leaves open.
    expected = "model.hidden: no value was given; set it with --config.model.hidden=..."
    assert refused(changed(model__hidden=None)) == expected


@pytest.mark.parametrize(
    ("change", "line"),
    [
        # Types.
        ({"model__hidden": 96.5}, "model.hidden=96.5: must be of type int, not float"),
        ({"model__hidden": True}, "model.hidden=True: must be of type int, not bool"),
        ({"optim__lr": "1e-3"}, "optim.lr='1e-3': must be of type float, not str"),
        ({"model__tied_head": 1}, "model.tied_head=1: must be of type bool, not int"),
        ({"data__path": 3}, "data.path=3: must be of type str, not int"),
        ({"topology__block": 16}, "topology.block=16: must be a tuple"),
        ({"topology__block": (16,)}, "topology.block=(16,): must be two integers (rows, columns)"),
        ({"topology__block": (16, 1.5)}, "topology.block=(16, 1.5): every element must be of type int"),
        ({"topology__rules": "mlp.*=0.5"}, "topology.rules='mlp.*=0.5': must be a tuple"),
        ({"topology__rules": (0.5,)}, "topology.rules=(0.5,): every element must be of type str"),
        # Ranges.
        ({"topology__density": 0}, "topology.density=0: must be in (0, 1]"),
        ({"topology__density": 1.5}, "topology.density=1.5: must be in (0, 1]"),
        ({"topology__density": float("nan")}, "topology.density=nan: must be in (0, 1]"),
        ({"topology__rate": 1.0}, "topology.rate=1: must be in [0, 1)"),
        ({"optim__lr": 0.0}, "optim.lr=0: must be in (0, 1e+30]"),
        ({"optim__lr": float("inf")}, "optim.lr=inf: must be in (0, 1e+30]"),
        ({"model__layers": 0}, "model.layers=0: must be in [1, 65536]"),
        ({"data__unique_tokens": -1}, "data.unique_tokens=-1: must be in [0, 1000000000000000000]"),
        ({"optim__ramp": 0}, "optim.ramp=0: must be in [1, 2147483647]"),
        # Choices.
        ({"topology__balance": "row"}, "topology.balance=row: not one of none, column"),
        ({"optim__moment_dtype": "float16"}, "optim.moment_dtype=float16: not one of float32, bfloat16"),
        (
            {"model__implementation": "cuda"},
            "model.implementation=cuda: not one of auto, reference, transient, xla, bcoo, batched, pallas_tpu, "
            "pallas_gpu",
        ),
        # Combinations.
        ({"model__kv_heads": 4}, "model.kv_heads=4: must divide model.heads=6; legal: [1, 2, 3, 6]"),
        ({"model__head_dim": 15}, "model.head_dim=15: must be even, rotary embeddings pair its halves"),
        (
            {"model__rope_scaling": "llama3", "model__rope_high_frequency": 1.0},
            "model.rope_high_frequency=1: must be above model.rope_low_frequency=1 under rope_scaling=llama3",
        ),
        (
            {"topology__method": "dense"},
            "topology.density=0.25: the method 'dense' needs density 1",
        ),
        (
            {"topology__grow": "none"},
            "topology.drop=magnitude, topology.grow=none: set both to rewire, or both to 'none' for a fixed topology",
        ),
        ({"topology__rate": 0.001}, "topology.rate_end=0.005: must not exceed topology.rate=0.001"),
        (
            {"train__epochs": 2},
            "train.steps=10000, train.epochs=2: set exactly one of them, the other to 0",
        ),
        ({"train__steps": 0}, "train.steps=0, train.epochs=0: set exactly one of them, the other to 0"),
        (
            {"train__batch_size": 6, "train__microbatches": 4},
            "train.microbatches=4: must divide train.batch_size=6; legal: [1, 2, 3, 6]",
        ),
        # A dense start.
        ({"init__criterion": "random"}, "init.criterion=random: not one of magnitude, activation"),
        ({"init__distill_weight": 1.5}, "init.distill_weight=1.5: must be in [0, 1]"),
        ({"init__distill_temperature": 0}, "init.distill_temperature=0: must be in (0, 1e+30]"),
        (
            {"init__distill_weight": 0.5},
            "init.distill_weight=0.5: needs a dense start to learn from; set init.from",
        ),
        (
            {"init__feature_weight": 2},
            "init.feature_weight=2: needs a dense start to learn from; set init.from",
        ),
        (
            {"init__from": "d", "topology__storage": "monarch", "topology__drop": "none", "topology__grow": "none"},
            "init.from=d: a dense weight has no two Monarch factors; use topology.storage=packed",
        ),
        (
            {"init__from": "d", "init__distill_weight": 0.5, "outer__every": 10, "mesh__replica": 2},
            "outer.every=10: replicas that train apart have no teacher; set init.distill_weight=0",
        ),
        (
            {"init__from": "d", "init__distill_weight": 0.5, "topology__grow": "gradient"},
            "topology.grow=gradient: looks at gradients of the text's loss, and a distilled run has another; use "
            "drop=magnitude and grow=random, or set init.distill_weight=0 and init.feature_weight=0",
        ),
        ({"data__source": "jsonl"}, "data.path is empty: data.source=jsonl needs the files to read"),
        (
            {"data__path": "books.txt"},
            "data.path=books.txt: data.source=stdlib reads no files; set data.source to their format",
        ),
        ({"data__tokenizer": "hf"}, "data.tokenizer_path is empty: data.tokenizer=hf needs a file"),
    ],
)
def test_one_line_names_field_value_and_fix(change, line):
    assert refused(changed(**change)) == line


FIXED = {"drop": "none", "grow": "none"}
DECAY = {"density_schedule": "cubic", "grow": "none"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"drop": "none", "grow": "gradient"},
            "topology.drop=none, topology.grow=gradient: set both to rewire, or both to 'none' for a fixed topology",
        ),
        ({"rate": 1.0}, "topology.rate=1: must be in [0, 1)"),
        (
            {**DECAY, "drop": "taylor"},
            "topology.density_schedule=cubic, topology.drop=taylor, topology.grow=none: "
            "a falling density only drops, by magnitude; set drop=magnitude and grow=none",
        ),
        (
            {**DECAY, "balance": "column"},
            "topology.balance=column, topology.density_schedule=cubic: counts that move cannot be balanced; "
            "set balance=none",
        ),
        (
            {"drop": "global_magnitude", "balance": "column"},
            "topology.balance=column, topology.drop=global_magnitude: counts that move cannot be balanced; "
            "set balance=none",
        ),
        (
            {**DECAY, "density_start": 0.1},
            "topology.density_start=0.1: must be at least topology.density=0.25, density only falls",
        ),
        (
            {"regrow_value": "keep"},
            "topology.regrow_value=keep: keeps weights dropped just now, which needs topology.regrow_dropped=True",
        ),
        ({"fade_steps": 100}, "topology.fade_steps=100: must be below topology.every=100"),
        (
            {"fade_steps": 5, "drop": "soft"},
            "topology.fade_steps=5: only drop=magnitude fades out, not drop=soft; set it to 0",
        ),
        ({"grow": "momentum", "score_steps": 101}, "topology.score_steps=101: must be at most topology.every=100"),
        (
            {**FIXED, "method": "sr_ste"},
            "topology.storage=packed: the method 'sr_ste' needs storage=dense_master",
        ),
        (
            {"storage": "dense_master", "density": 0.5},
            "topology.storage=dense_master, topology.drop=magnitude, topology.grow=random: "
            "only packed blocks are rewired; set drop=none and grow=none",
        ),
        (
            {**FIXED, "flow": "mask_exp"},
            "topology.flow=mask_exp: needs topology.storage=dense_master, not packed",
        ),
        (
            {**FIXED, "storage": "dense_master"},
            "topology.density=0.25: topology.nm=(2, 4) has density 0.5; set both alike",
        ),
        (
            {**FIXED, "storage": "dense_master", "nm": (5, 4)},
            "topology.nm=(5, 4): must be N of M with 1 <= N <= M",
        ),
        (
            {**FIXED, "storage": "dense_master", "nm": (8, 32), "block": (1, 1), "flow_end": 0.05},
            "topology.flow_end=0.05: must be at least topology.flow_start=0.1",
        ),
        ({"method": "galore"}, "topology.density=0.25: the method 'galore' needs density 1"),
    ],
)
def test_choices_of_methods_that_cannot_work_together(change, line):
    assert refused(changed(**{f"topology__{key}": value for key, value in change.items()})) == line


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"block": (5, 16)},
            "topology.block=(5, 16): 5 does not divide model.hidden=96; "
            "legal sides: [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96]",
        ),
        (
            {"block": (16, 32)},
            "topology.block=(16, 32): 32 does not divide model.kv_heads*head_dim=48; "
            "legal sides: [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]",
        ),
        ({"block": (0, 16)}, "topology.block=(0, 16): must be in [1, 4194304]"),
        ({"block": (16, 0), "density": 1.0}, "topology.block=(16, 0): must be in [1, 4194304]"),
        (
            {"shards": 2},
            "topology.shards=2: does not divide the 3 blocks of 16 along model.kv_heads*head_dim=48; legal: [1, 3]",
        ),
        (
            {"shards": 4, "block": (16, 4)},
            "topology.shards=4: does not divide the 6 blocks of 16 along model.heads*head_dim=96; legal: [1, 2, 3, 6]",
        ),
    ],
)
def test_blocks_and_shares_that_do_not_fit_name_the_legal_ones(change, line):
    assert refused(changed(**{f"topology__{key}": value for key, value in change.items()})) == line


def test_blocks_and_shares_are_checked_only_along_the_widths_they_cut():
    # A block of 32 rows fits the inputs of every weight; the 48 outputs of k and v are cut into columns of 16.
    assert resolve(changed(topology__block=(32, 16))).topology.block == (32, 16)
    # Three shares: hidden 100 is 25 blocks of 4, which 3 does not divide, but no weight is cut along hidden.
    assert resolve(changed(model__hidden=100, topology__block=(4, 4), topology__shards=3)).topology.shards == 3
    # A dense run has no blocks.
    dense = {"topology__density": 1.0, "topology__block": (7, 7), "topology__method": "dense"}
    assert resolve(changed(**dense)).topology.density == 1.0


@pytest.mark.parametrize("rule", ["mlp", "mlp.*=", "mlp.*=0", "mlp.*=1.5", "mlp.*=nan", "(=0.5", "mlp.*=half"])
def test_a_rule_that_cannot_be_read_shows_the_syntax(rule):
    line = f"topology.rules={rule!r}: must read '<regex>=<density in (0, 1]>'"
    assert refused(changed(topology__rules=("attention.*=0.5", rule))) == line
    # Rules are read at density 1 too: they are what makes such a run sparse.
    assert refused(changed(topology__rules=(rule,), topology__density=1.0)) == line


def test_differing_keys_names_semantic_keys_only():
    old = resolve(changed()).to_dict()
    assert differing_keys(old, old) == []
    new = resolve(changed(optim__lr=2e-3, topology__block=(8, 8), seeds__data=5)).to_dict()
    assert differing_keys(old, new) == [
        "optim.lr: 0.001 -> 0.002",
        "seeds.data: 0 -> 5",
        "topology.block: (16, 16) -> (8, 8)",
    ]
    # A config that went through JSON has lists where the other has tuples.
    assert differing_keys(json.loads(json.dumps(old)), old) == []


def test_what_a_resumed_run_may_change_never_counts_as_different():
    old = resolve(changed()).to_dict()
    new = resolve(changed()).to_dict()
    for name in FREE_ON_RESUME:
        section, _, key = name.partition(".")
        new[section][key] = "another"
    assert differing_keys(old, new) == []


def test_keys_and_sections_of_another_version_are_named():
    old, new = changed(), changed()
    del old["seeds"]["data"]
    del new["train"]["z_loss"]
    assert differing_keys(old, new) == ["seeds.data: absent -> 0", "train.z_loss: 0.0 -> absent"]
    del old["seeds"]
    assert "seeds.init: absent -> 0" in differing_keys(old, new)
