"""A step whose loss is not a number changes nothing: every method, storage and rule, with all that is due after it.

The loss is made to be NaN for a batch that holds one token, so that the step, the scores and the losses around a
rewiring meet it as they would meet a bad batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.methods import METHODS
from sparsejax.training import loss, programs
from sparsejax.training.feed import Feed
from sparsejax.training.growth_scores import one_batch_decides
from sparsejax.training.meeting import meeting_of
from sparsejax.training.metrics import SilentLog
from sparsejax.training.rewirer import Rewirer
from sparsejax.training.sharding import batch_sharding
from tests.training.meshes import mesh_recipe
from tests.training.tiny import tiny_recipe

POISON = 99
# Rules and storages that no method has by itself.
RULES = {
    "taylor": {"topology_drop": "taylor"},
    "threshold": {"topology_drop": "threshold", "topology_drop_threshold": 0.02},
    "global": {"topology_drop": "global_magnitude", "topology_capacity_slack": 2.0},
    "neuron": {"topology_grow": "momentum_neuron", "topology_score_steps": 2},
    "fade": {"topology_fade_steps": 2, "topology_grow": "gradient"},
    "elements": {"topology_block": (1, 1), "topology_grow": "mix", "optim_moment_dtype": "bfloat16"},
    "average": {"optim_ema_decay": 0.9, "optim_weight_decay": 0.1, "train_microbatches": 2},
    "flow": {"topology_flow": "mask_linear", "topology_method": "sr_ste"},
}
FAST = "rigl_momentum"
CASES = [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in (*METHODS, *RULES)]


def changes_of(name):
    """The settings of a case, of a model of one layer that rewires after every third step."""
    changes = {"model_layers": 1, "train_steps": 9} | (RULES[name] if name in RULES else {"topology_method": name})
    method = METHODS[changes["topology_method"] if "topology_method" in changes else "smet"]
    for section in ("topology", "optim"):
        rows = {f"{section}_{key}": value for key, value in getattr(method, section).items()}
        changes = rows | changes
    changes["topology_score_steps"] = min(changes["topology_score_steps"], 2)
    changes["topology_stop_fraction"] = 1.0
    return changes | ({"topology_density": 1.0} if name in ("dense", "galore") else {})


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the loss of a batch with ``POISON`` in it NaN, before programs are made."""
    plain = loss.loss_sums

    def loss_sums(logits, target):
        sums = plain(logits, target)
        return dataclasses.replace(sums, nll=sums.nll * jnp.where(jnp.any(target == POISON), jnp.nan, 1.0))

    monkeypatch.setattr(loss, "loss_sums", loss_sums)


class Run:
    """The loop's part that changes a state: the step, and what is due to replicas and topology after it."""

    def __init__(self, recipe):
        self.recipe, self.step = recipe, programs.train_step(recipe)
        self.rewirer, self.meeting = Rewirer(recipe, SilentLog()), meeting_of(recipe, SilentLog())
        shape = recipe.run.train.batch_size, recipe.run.data.sequence_length
        self.feed = Feed(None if recipe.mesh is None else batch_sharding(recipe), shape)
        self.rates = self.feed.everywhere(recipe.rates)

    def after(self, state, number, token):
        """The state after step ``number``, on the host; the batch is of one token."""
        rows = np.full((self.recipe.run.train.batch_size, self.recipe.run.data.sequence_length), token, np.int32)
        rows[:, 1::2] = np.arange(rows.shape[1] // 2)
        target = self.feed.place(rows)
        state, metrics = self.step(state, target, self.rates)
        state = self.rewirer.after_step(self.meeting.after_step(state, number), number, target)
        return state, self.meeting.read([metrics])[0]


def differing(before, after):
    """Paths of the leaves that differ in any bit."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if np.asarray(a).tobytes() != np.asarray(b).tobytes()]


def check_nothing_changes(recipe, moving=()):
    """A poisoned step between rewirings moves the counters and ``moving`` alone."""
    run = Run(recipe)
    state, _ = run.after(programs.init_state(recipe), 1, token=1)
    before = jax.device_get(state)
    state, metrics = run.after(state, 2, token=POISON)
    after = jax.device_get(state)
    assert not np.isfinite(metrics["loss"]) and metrics["skipped"] == 1
    assert set(differing(before, after)) == {".step", ".skipped", ".skipped_in_row", *moving}
    return run, state, after


@pytest.mark.parametrize("name", CASES)
def test_a_skipped_step_changes_nothing(tmp_path, poisoned, name):
    recipe = tiny_recipe(tmp_path, **changes_of(name))
    kinds = ("attention", "qkvo"), ("mlp", ("gate", "up", "down"))
    flows = {f".topology['layers']['{room}']['{kind}']['faded']" for room, names in kinds for kind in names}
    run, state, before = check_nothing_changes(recipe, flows if name == "flow" else ())
    state, _ = run.after(state, 3, token=POISON)
    after = jax.device_get(state)
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(after))
    decided = recipe.rewires and one_batch_decides(recipe.run.topology)
    if decided or not recipe.rewires:
        assert not [path for path in differing(before, after) if path.startswith(".params")]


@pytest.mark.slow
def test_replicas_that_train_apart_skip_alone(tmp_path, poisoned):
    changes = {"mesh_replica": 2, "outer_every": 3, "outer_top": 0.25, "model_layers": 1, "train_batch_size": 8}
    recipe = mesh_recipe(tmp_path, (2, 1, 1), **changes, topology_every=6)
    check_nothing_changes(recipe)
