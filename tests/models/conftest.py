"""A tiny decoder to change field by field: two layers, width 16, two query heads to each key head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import pytest

from sparsejax.config import ModelConfig, TopologyConfig
from sparsejax.models.functional import Tree, initial_trees
from sparsejax.models.llama import Llama
from sparsejax.models.weight_table import SparseWeight, weight_table

MODEL = ModelConfig(
    size="",
    hidden=16,
    mlp=24,
    heads=4,
    kv_heads=2,
    head_dim=8,
    layers=2,
    rope_base=1e4,
    rope_scaling="none",
    rope_factor=8.0,
    rope_low_frequency=1.0,
    rope_high_frequency=4.0,
    rope_original_length=64,
    rms_eps=1e-6,
    tied_head=False,
    init_std=0.2,
    init="normal",
    compute_dtype="float32",
    remat="none",
    implementation="transient",
    attention="xla",
)
TOPOLOGY = TopologyConfig(
    density=1.0,
    block=(4, 4),
    shards=1,
    balance="none",
    allocation="uniform",
    attention_mlp_ratio=1.0,
    rules=(),
    method="static",
    drop="none",
    grow="none",
    every=100,
    rate=0.3,
    rate_end=0.005,
    rate_schedule="cosine",
    stop_fraction=1.0,
    regrow_dropped=False,
    regrow_value="zero",
    drop_threshold=0.0,
    temperature=1.0,
    temperature_end=3.0,
    fade_steps=0,
    mix=0.5,
    score_steps=1,
    score_decay=0.9,
    capacity_slack=1.5,
    density_start=0.999,
    density_schedule="constant",
    storage="packed",
    nm=(2, 4),
    ste_decay=2e-4,
    flow="none",
    flow_start=0.1,
    flow_end=0.75,
)


@pytest.fixture
def make_model() -> Callable[..., ModelConfig]:
    """``make_model(layers=1)``: the tiny model with these fields changed."""
    return lambda **changes: dataclasses.replace(MODEL, **changes)


@pytest.fixture
def make_weights() -> Callable[..., dict[str, SparseWeight]]:
    """``make_weights(model, density=0.5)``: its density table with these topology fields changed."""
    return lambda model, **changes: weight_table(model, dataclasses.replace(TOPOLOGY, **changes))


@pytest.fixture
def builder() -> Callable[..., Callable[[], Llama]]:
    """``builder(model, weights, topology_seed=3)``: a function without arguments that makes the model."""
    return build


@pytest.fixture(scope="session")
def initial() -> Callable[..., tuple[Tree, Tree]]:
    """``initial(model, weights, init_seed=1, topology_seed=2)``: its trees; a program is compiled once a session."""

    @functools.cache
    def program(model: ModelConfig, weights: tuple[SparseWeight, ...]) -> Callable[[int, int], tuple[Tree, Tree]]:
        table = {weight.name: weight for weight in weights}

        def trees(init_seed: int, topology_seed: int) -> tuple[Tree, Tree]:
            return initial_trees(build(model, table, init_seed=init_seed, topology_seed=topology_seed))

        # Compiling is all the cost of so small a program; optimising it would only add to that.
        return jax.jit(trees, compiler_options={"xla_backend_optimization_level": 0})

    def run(
        model: ModelConfig, weights: dict[str, SparseWeight], init_seed: int = 1, topology_seed: int = 2
    ) -> tuple[Tree, Tree]:
        # Neither the remat policy nor the compute dtype decides what is drawn.
        drawn = dataclasses.replace(model, remat="none", compute_dtype="float32")
        return program(drawn, tuple(weights.values()))(init_seed, topology_seed)

    return run


def build(model: ModelConfig, weights: dict[str, SparseWeight], **changes: object) -> Callable[[], Llama]:
    """A function without arguments that makes the model."""
    arguments = {
        "vocab_size": 32,
        "init_seed": 1,
        "topology_seed": 2,
        "implementations": dict.fromkeys(weights, "transient"),
        "attention": "xla",
    } | changes
    return lambda: Llama(model, weights, **arguments)
