"""Every setting of base.py either always matters or is known to need something, and is said where it is missing."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from sparsejax.config import ConfigError, resolve
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology.methods import METHODS
from sparsejax.training.idle_settings import SETTINGS, facts_of, idle_settings
from sparsejax.training.loop import train
from sparsejax.training.recipe import build_recipe
from sparsejax.training.rewire_plan import is_due, plan_at
from sparsejax.training.run_remarks import refusals, remarks
from sparsejax.training.steps import moving_densities
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run, tiny_settings

BASE = {f"{section}.{key}": value for section, values in get_config().items() for key, value in values.items()}
# In every run, whatever else is set.
ALWAYS = {
    *(f"model.{key}" for key in ("size", "hidden", "mlp", "heads", "kv_heads", "head_dim", "layers", "rope_base")),
    *(f"model.{key}" for key in ("rms_eps", "tied_head", "compute_dtype", "remat", "attention")),
    *("topology.density", "topology.method"),
    *(f"optim.{key}" for key in ("lr", "b1", "b2", "eps", "vocabulary_lr_ratio", "weight_decay", "clip")),
    *("optim.moment_dtype", "optim.ema_decay"),
    *(f"data.{key}" for key in ("source", "validation_path", "sequence_length", "unique_tokens", "cache_dir")),
    *(f"train.{key}" for key in ("steps", "epochs", "batch_size", "microbatches", "z_loss", "eval_tokens")),
    *("train.keep_last", "train.compile_cache"),
    *("mesh.replica", "mesh.fsdp", "mesh.tensor", "outer.every", "seeds.init", "seeds.data"),
}
# Refused where they would do nothing, or said rule by rule.
ELSEWHERE = {"init.from", "init.distill_weight", "init.feature_weight", "topology.rules"}
# Another legal value of settings that a topology or an optimizer may leave without effect.
OTHER = {
    "topology.balance": "column",
    "topology.allocation": "erk",
    "topology.rate": 0.25,
    "topology.rate_end": 0.2,
    "topology.rate_schedule": "linear",
    "topology.regrow_value": "init",
    "topology.drop_threshold": 0.5,
    "topology.temperature": 2.0,
    "topology.temperature_end": 2.5,
    "topology.mix": 0.9,
    "topology.score_decay": 0.3,
    "topology.capacity_slack": 2.5,
    "topology.density_start": 0.9,
    "topology.ste_decay": 1e-2,
    "topology.flow_start": 0.3,
    "topology.flow_end": 0.9,
    "optim.ramp": 2,
    "optim.density_exponent": 0.3,
    "optim.galore_rank": 3,
    "optim.galore_every": 5,
    "optim.decay_fraction": 0.5,
    "optim.restarts": 2,
    "optim.min_ratio": 0.4,
    "model.init": "density_aware",
}


def settings_of(method, **changes):
    """The nested settings of a tiny run of a method, with what its storage needs."""
    row = METHODS[method]
    given = {f"topology_{key}": value for key, value in row.topology.items()}
    given |= {f"optim_{key}": value for key, value in row.optim.items()}
    given |= {"topology_method": method, "topology_score_steps": min(row.topology["score_steps"], 3)}
    if method in ("dense", "galore"):
        given["topology_density"] = 1.0
    return given | changes


def test_every_setting_is_known_and_at_rest_in_base():
    assert set(SETTINGS) | ALWAYS | ELSEWHERE == set(BASE)
    assert not set(SETTINGS) & (ALWAYS | ELSEWHERE)
    assert {field: value for field, (value, _) in SETTINGS.items()} == {field: BASE[field] for field in SETTINGS}


def what_trains(recipe, *, updates):
    """What decides what a run learns, but for its data: counts and plans, with ``updates`` rates and an update too."""
    rule = recipe.run.topology
    plans = [jax.device_get(plan_at(recipe, step)) for step in range(1, recipe.steps) if is_due(recipe, step)]
    rewirings = [
        (plan.drop, plan.grow, rule.grow == "mix" and plan.by_gradient, rule.drop == "soft" and plan.temperature)
        for plan in plans
    ]
    regrown = rule.regrow_value if recipe.rewires and rule.grow != "none" else 0
    found = recipe.weights, rewirings, regrown, recipe.run.model.init if recipe.sparse else 0
    if not updates:
        return str(found)
    draw = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: draw.uniform(0.1, 1.0, leaf.shape).astype(leaf.dtype), recipe.abstract)
    adam = sparse_adam_state(state.opt_state)
    grows = recipe.rewires and rule.grow != "none"
    ages = {path: np.full_like(age, 1 if grows else 5) for path, age in adam.ages.items()}
    later = adam._replace(count=np.int32(5), ages=ages)
    opt_state = jax.tree.map(lambda node: later if node is adam else node, state.opt_state, is_leaf=lambda n: n is adam)
    moving = moving_densities(recipe, dataclasses.replace(state, topology=jax.tree.map(jnp.asarray, state.topology)))
    now = {path: np.float32(0.4) for path in moving}
    directions, _ = recipe.optimizer.update(state.params, opt_state, state.params, densities_now=now)
    numbers = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((recipe.rates[: recipe.steps], directions))]
    return str((found, numbers))


@pytest.mark.parametrize(
    "method",
    ["gmp", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "gmp")],
)
def test_what_is_called_idle_changes_nothing_and_the_rest_does(tmp_path, method):
    settings, target = tiny_settings(tmp_path, **settings_of(method)), tiny_recipe(tmp_path).target

    def trains(field, value, updates):
        nested = {section: dict(values) for section, values in settings.items()}
        section, _, key = field.partition(".")
        nested[section][key] = value
        run = resolve(nested)
        recipe = build_recipe(run, steps=12, vocab_size=257, start_id=256, target=target)
        return idle_settings(facts_of(run)), what_trains(recipe, updates=updates)

    known = [trains("train.steps", 12, updates)[1] for updates in (False, True)]
    for field, value in OTHER.items():
        updates = field.startswith("optim.")
        try:
            idle, found = trains(field, value, updates)
        except ConfigError:
            continue  # refused, which is as good
        if field in idle:
            assert found == known[updates], field
        elif field.startswith(("optim.", "topology.rate", "topology.temperature", "topology.allocation")):
            assert found != known[updates], field


def test_what_is_set_without_effect_is_said_in_one_line_each(tmp_path):
    changes = {"optim_galore_rank": 3, "optim_galore_every": 5, "topology_rate_schedule": "wsd"}
    lines = remarks(facts_of(tiny_run(tmp_path, **changes, topology_rate_end=0.2)))
    assert lines == [
        "optim.galore_rank=3, optim.galore_every=5: no effect in this run (optim.form=smet)",
        "topology.rate_end=0.2: no effect in this run (topology.rate_schedule=wsd)",
    ]
    assert remarks(facts_of(tiny_run(tmp_path))) == []


def test_runs_that_never_rewire_say_so(tmp_path):
    any_recipe = tiny_recipe(tmp_path)
    for every, stop in itertools.product((12, 100, 6), (1.0, 0.4)):
        run = tiny_run(tmp_path, topology_every=every, topology_stop_fraction=stop)
        said = any("nothing is ever rewired" in line for line in remarks(facts_of(run)))
        recipe = dataclasses.replace(any_recipe, run=run)
        assert said != any(is_due(recipe, step) for step in range(13))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"topology_drop": "threshold"}, "topology.drop_threshold=0: only blocks of zeros may go"),
        ({"topology_density": 1.0}, "topology.method=smet: no weight is sparse"),
        ({"topology_grow": "gradient"}, "topology.method=smet: recorded by name only"),
        ({"topology_rules": ("mlp.*=0.25", "mlp.up=0.125")}, "topology.rules='mlp.up=0.125': no effect"),
        ({"train_keep_every": 7}, "train.keep_every=7: no effect in this run (no checkpoint is saved at a multiple"),
        ({"train_eval_every": 40}, "train.eval_every=40: no effect in this run (the run has 12 steps)"),
        ({"data_vocab_size": 99}, "data.vocab_size=99: no effect in this run (data.tokenizer=byte)"),
    ],
)
def test_remarks(tmp_path, changes, line):
    assert any(found.startswith(line) for found in remarks(facts_of(tiny_run(tmp_path, **changes))))


def test_a_dense_method_with_sparse_rules_is_refused_when_new_and_told_when_it_continues(tmp_path):
    changes = settings_of("dense", topology_rules=("mlp.down=0.5",), train_steps=1, train_eval_tokens=16)
    run = tiny_run(tmp_path, **changes)
    (line,) = refusals(facts_of(run))
    assert line.startswith(
        "topology.rules=('mlp.down=0.5',): the method 'dense' needs density 1 everywhere, and mlp.down"
    )
    with pytest.raises(ConfigError, match="the method 'dense' needs density 1 everywhere"):
        train(run, tmp_path / "run", extend=False, console=quiet_console())
    assert refusals(facts_of(dataclasses.replace(run, topology=dataclasses.replace(run.topology, rules=())))) == []
    with pytest.raises(ConfigError, match=r"^topology.rules='mlp.down=0.5': optim.form=galore projects dense weights"):
        tiny_run(tmp_path, **settings_of("galore", topology_rules=("mlp.down=0.5",)))
