"""Replicas that train apart: what they learn, what they send, and that they agree wherever they meet.

One run for all tests, two replicas of one device: eight steps, meetings after every second, a rewiring after the
fourth. Programs are compiled once, and read where they run.
"""

import dataclasses
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax.config import ConfigError, resolve
from sparsejax.hardware.target import CPU
from sparsejax.planning.collectives import collectives
from sparsejax.planning.ring import Traffic
from sparsejax.training import programs, workdir
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.loop import train
from sparsejax.training.meeting import meeting_of
from sparsejax.training.metrics import SilentLog, read_rows
from sparsejax.training.outer import combined, meets, slow_traffic
from sparsejax.training.recipe import Recipe, build_recipe, index_of, values_of, values_path
from sparsejax.training.restore import restore_run
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.sharding import batch_sharding, placed, state_shardings
from sparsejax.training.state import TrainState
from tests.training.meshes import Shape, batch, mesh_recipe
from tests.training.tiny import quiet_console, tiny_run, tiny_settings

MESH: Shape = (2, 1, 1)
APART = {
    "mesh_replica": 2,
    "outer_every": 2,
    "outer_top": 0.25,
    "outer_chunk": 256,
    "outer_mean": "replicas",
    "topology_every": 4,
    "train_steps": 8,
    "train_batch_size": 8,
    "model_layers": 1,
}
WHOLE = {"outer_top": 1.0, "outer_bits": 32, "outer_lr": 0.5}

rows = partial(batch, rows=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("apart")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return mesh_recipe(folder, MESH, **APART)


@pytest.fixture(scope="module")
def step(recipe: Recipe) -> Any:
    """The compiled train step."""
    return programs.train_step(recipe).lower(placed(recipe), rows(0), recipe.rates).compile()


@pytest.fixture(scope="module")
def meet(recipe: Recipe) -> Any:
    """The compiled meeting."""
    return programs.meet_step(recipe).lower(placed(recipe)).compile()


@pytest.fixture(scope="module")
def rewire(recipe: Recipe) -> Any:
    """The compiled rewiring."""
    return programs.rewire_step(recipe).lower(placed(recipe), plan_at(recipe, 4), NO_SCORES).compile()


def on_devices(recipe: Recipe, state: TrainState) -> TrainState:
    """A copy that a program may use up."""
    return jax.tree.map(lambda leaf, at: jax.device_put(leaf, at), state, state_shardings(recipe))


@pytest.fixture(scope="module")
def apart(recipe: Recipe, step: Any) -> TrainState:
    """After two steps, before the meeting; on the host."""
    state = programs.init_state(recipe)
    targets = (jax.device_put(rows(number), batch_sharding(recipe)) for number in range(2))
    rates = jax.device_put(recipe.rates, NamedSharding(recipe.mesh, PartitionSpec()))
    for target in targets:
        state, metrics = step(state, target, rates)
    assert metrics["loss"].shape == (2,) and metrics["loss"][0] != metrics["loss"][1]
    return jax.device_get(state)


@pytest.fixture(scope="module")
def met(recipe: Recipe, meet: Any, apart: TrainState) -> TrainState:
    """The same after the meeting."""
    return jax.device_get(meet(on_devices(recipe, apart))[0])


def test_replicas_learn_what_they_would_alone_and_meet_at_the_mean(folder: Path, recipe, apart: TrainState) -> None:
    """Everything sent as it is: theta goes ``outer.lr`` of the way to the mean of two runs that know of no other."""
    run = tiny_run(folder, **(alone_settings(recipe) | {"train_batch_size": 4, "mesh_replica": 1}))
    alone = build_recipe(run, steps=run.train.steps, vocab_size=257, start_id=256, target=CPU)
    step, states = programs.train_step(alone), []
    for replica in range(2):
        state = programs.init_state(alone)
        for number in range(2):
            state, _ = step(state, rows(number)[4 * replica : 4 * replica + 4], alone.rates)
        states.append(jax.device_get(state))
    for replica, state in enumerate(states):
        own = jax.tree.map(lambda leaf, replica=replica: leaf[replica], (apart.outer.params, apart.opt_state))
        assert_near(own, (state.params, state.opt_state))
    whole = mesh_recipe(folder, MESH, **(APART | WHOLE))
    after, metrics = programs.meet_step(whole)(apart)
    start = jax.device_get(programs.init_state(alone)).params
    mean = jax.tree.map(lambda a, b: (a + b) / 2, states[0].params, states[1].params)
    assert_near(after.params, jax.tree.map(lambda a, b: a + 0.5 * (b - a), start, mean))
    assert all(not leaf.any() for leaf in jax.tree.leaves(after.outer.error))
    change = jax.tree.map(np.subtract, jax.device_get(after.params), apart.params)
    assert float(metrics["update_norm"]) == pytest.approx(np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(change))))


def alone_settings(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.run.to_dict()
    changed = {f"{section}_{key}": value for section, values in settings.items() for key, value in values.items()}
    return changed | {"outer_every": 1}


def assert_near(one: Any, other: Any) -> None:
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_sent_and_what_is_left_is_what_there_was(
    recipe: Recipe, meet: Any, apart: TrainState, met: TrainState
) -> None:
    """``mean q + mean e' = mean (beta e + theta - theta_r)``, whatever was chosen and however it was rounded."""
    error = jax.tree.map(lambda leaf: 0.1 * leaf, apart.outer.params)
    before = dataclasses.replace(apart, outer=dataclasses.replace(apart.outer, error=error))
    after = jax.device_get(meet(on_devices(recipe, before))[0])
    beta, lr = recipe.run.outer.beta, recipe.run.outer.lr
    trees = before.params, after.params, before.outer.params, error, after.outer.error
    for theta, new, own, had, left in zip(*map(jax.tree.leaves, trees), strict=True):
        there_was = beta * had + theta[None] - own
        np.testing.assert_allclose((theta - new) / lr + left.mean(axis=0), there_was.mean(axis=0), atol=1e-6)
    assert any(leaf.any() for leaf in jax.tree.leaves(met.outer.error))


def test_all_go_on_from_the_same_weights_with_moments_of_their_own(met: TrainState) -> None:
    for theta, own in zip(jax.tree.leaves(met.params), jax.tree.leaves(met.outer.params), strict=True):
        np.testing.assert_array_equal(own, np.stack([theta, theta]))
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(met.opt_state))
    # Norm scales are sent whole.
    assert not met.outer.error["norm"]["scale"].any()


def test_a_quarter_of_every_chunk_is_sent(recipe: Recipe, apart: TrainState, met: TrainState) -> None:
    name = "mlp.up"
    moved = values_of(met.params, name) != values_of(apart.params, name)
    # Two replicas, and what one sends may be what the other sends.
    assert 0.25 <= moved.mean() <= 0.5


def test_nothing_crosses_between_meetings_and_one_message_does_at_a_meeting(recipe: Recipe, step, meet, rewire) -> None:
    assert crossing(recipe, step) == []
    (message,) = crossing(recipe, meet)
    expected = slow_traffic(recipe)
    assert (message.kind, message.axes, message.count) == ("all-gather", ("replica",), 1)
    assert (message.payload, message.sent) == (2 * expected.message, expected.meeting)
    # A rewiring sends the ages of blocks, for the log, and no weight.
    blocks = sum(weight.capacity for weight in recipe.sparse.values())
    assert 0 < sum(each.payload for each in crossing(recipe, rewire)) <= 4 * (blocks + len(recipe.sparse))


def crossing(recipe: Recipe, compiled: Any) -> list[Traffic]:
    """What travels along the replica axis."""
    assert recipe.mesh is not None
    return [each for each in collectives(compiled.as_text(), recipe.mesh.shape) if "replica" in each.axes]


@pytest.mark.slow
def test_replicas_of_several_devices_send_their_parts(folder: Path) -> None:
    """2 x 2 x 2: gathers and sums go over fsdp and tensor, and the four devices of a replica have a message each."""
    recipe = mesh_recipe(folder, (2, 2, 2), **APART)
    step = programs.train_step(recipe).lower(placed(recipe), rows(0), recipe.rates).compile()
    assert crossing(recipe, step) == []
    meet = programs.meet_step(recipe)
    (message,) = crossing(recipe, meet.lower(placed(recipe)).compile())
    assert (message.payload, message.sent) == (slow_traffic(recipe).message / 2, slow_traffic(recipe).meeting / 4)
    state = programs.init_state(recipe)
    for number in range(2):
        state, _ = programs.train_step(recipe)(state, rows(number), recipe.rates)
    state, _ = jax.device_get(meet(state))
    for theta, own in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.outer.params), strict=True):
        np.testing.assert_array_equal(own, np.stack([theta, theta]))


def test_bytes_by_arithmetic(recipe: Recipe) -> None:
    """Two replicas: a meeting sends one message, two steps share it; a sum of gradients sends 4 bytes a parameter."""
    traffic = slow_traffic(recipe)
    assert (traffic.meeting, traffic.step) == (traffic.message, traffic.message / 2)
    stored = sum(leaf.size for leaf in jax.tree.leaves(recipe.abstract.params))
    assert traffic.all_reduce == 4 * stored
    assert traffic.share == traffic.step / traffic.all_reduce
    assert traffic.line(2, 2).startswith("2 replicas meet every 2 steps: 0.0")


def test_rewiring_is_one_choice_and_what_was_not_sent_follows_its_blocks(
    recipe: Recipe, rewire: Any, met: TrainState
) -> None:
    plan = jax.device_put(plan_at(recipe, 4), NamedSharding(recipe.mesh, PartitionSpec()))
    after, _ = jax.device_get(rewire(on_devices(recipe, met), plan, NO_SCORES))
    for theta, own in zip(jax.tree.leaves(after.params), jax.tree.leaves(after.outer.params), strict=True):
        np.testing.assert_array_equal(own, np.stack([theta, theta]))
    grid = recipe.sparse["mlp.up"].grid
    before_at, after_at = (blocks(state, "mlp.up", grid.columns) for state in (met, after))
    kept = before_at.keys() & after_at.keys()
    grown = after_at.keys() - before_at.keys()
    assert kept and grown
    moments = after.opt_state[1]
    for place in kept:
        for replica in range(2):
            old, new = (
                values_of(s.outer.error, "mlp.up")[replica, 0, at[place]]
                for s, at in ((met, before_at), (after, after_at))
            )
            np.testing.assert_array_equal(old, new)
    slots = [after_at[place] for place in grown]
    assert not values_of(after.outer.error, "mlp.up")[:, 0, slots].any()
    assert not values_of(moments.mu, "mlp.up")[:, 0, slots].any()
    assert not moments.ages[values_path("mlp.up")][:, 0, slots].any()


def blocks(state: TrainState, name: str, columns: int) -> dict[tuple[int, int], int]:
    """Slot of every active place of the first layer."""
    index = index_of(state.topology, name)
    places = zip(index.rows[0].tolist(), index.cols[0].tolist(), strict=True)
    return {place: slot for slot, place in enumerate(places) if place[1] < columns}


def test_a_replica_skips_its_step_alone(recipe: Recipe, step, apart: TrainState) -> None:
    params = jax.tree.map(np.copy, apart.outer.params)
    params["head"]["kernel"][1, 0, 0] = np.nan
    broken = dataclasses.replace(apart, outer=dataclasses.replace(apart.outer, params=params))
    target = jax.device_put(rows(2), batch_sharding(recipe))
    rates = jax.device_put(recipe.rates, NamedSharding(recipe.mesh, PartitionSpec()))
    after, metrics = jax.device_get(step(on_devices(recipe, broken), target, rates))
    assert after.skipped.tolist() == after.skipped_in_row.tolist() == [0, 1]
    assert after.opt_state[1].count.tolist() == [3, 2]
    (row,) = combined([metrics])
    assert int(row["skipped"]) == 1 and float(row["tokens"]) == metrics["tokens"].sum()


def test_a_checkpoint_between_meetings_holds_every_replica(recipe: Recipe, apart: TrainState, tmp_path: Path) -> None:
    """Restored on the mesh, and on one device, where whoever reads a run finds the weights of the last meeting."""
    read = dataclasses.replace(recipe, mesh=None)
    with Checkpoints(tmp_path, keep_last=2, keep_every=0, notice=print) as saved:
        saved.save(on_devices(recipe, apart), recipe.run.to_dict())
        saved.wait()
        for abstract in (placed(recipe), placed(read)):
            found = jax.device_get(saved.restore(lambda _, abstract=abstract: abstract))
            assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (found, apart)), strict=True))


def test_another_number_of_replicas_is_another_run(recipe: Recipe, tmp_path: Path) -> None:
    workdir.write_manifest(tmp_path, recipe.run, 8, "data", "tokenizer")
    for changes, refused in (({"replica": 4}, True), ({"fsdp": 4}, False)):
        mesh = dataclasses.replace(recipe.run.mesh, **changes)
        run = dataclasses.replace(recipe.run, mesh=mesh)
        if refused:
            with pytest.raises(ConfigError, match=r"holds a run with another config \(mesh.replica: 2 -> 4\)"):
                workdir.check_continues(tmp_path, run, extend=False)
        else:
            workdir.check_continues(tmp_path, run, extend=False)


class Rows(SilentLog):
    """A log that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, Any]] = []

    def write(self, kind, step, values) -> None:
        self.rows.append((kind, step, values))


def test_a_meeting_is_logged_with_its_bytes(recipe: Recipe, apart: TrainState, met: TrainState) -> None:
    log = Rows()
    meeting = meeting_of(recipe, log)
    state = on_devices(recipe, apart)
    assert meeting.after_step(state, 3) is state
    after = jax.device_get(meeting.after_step(state, 2))
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (after, met)), strict=True))
    ((kind, step, row),) = log.rows
    assert (kind, step, row["outer/bytes_per_step"]) == ("meeting", 2, slow_traffic(recipe).step)
    assert row["outer/update_norm"] > 0.0
    window = [
        {"loss": np.float32([1, 3]), "skipped_in_row": np.int32([0, 2]), "tokens": np.float32([5, 15])},
        {"loss": np.float32([4, 0]), "skipped_in_row": np.int32([0, 0]), "tokens": np.float32([5, 0])},
    ]
    # Means over tokens: (5 * 1 + 15 * 3) / 20; and a replica without rows has no part in one.
    assert [{name: float(value) for name, value in row.items()} for row in meeting.read(window)] == [
        {"loss": 2.5, "skipped_in_row": 2.0, "tokens": 20.0},
        {"loss": 4.0, "skipped_in_row": 0.0, "tokens": 5.0},
    ]
    assert (meeting.skipped_in_row(window[0], 3), meeting.skipped_in_row(window[0], 2)) == (0, 2)


@pytest.mark.slow
def test_a_run_resumed_between_meetings_ends_where_it_would_have(folder: Path) -> None:
    recipe = mesh_recipe(folder, MESH, **APART)
    run = dataclasses.replace(recipe.run, train=dataclasses.replace(recipe.run.train, checkpoint_every=3))
    console = quiet_console()
    assert train(run, folder / "run", extend=False, console=console).exit_code == 0
    assert "2 replicas meet every 2 steps" in console.file.getvalue()
    found = read_rows(folder / "run" / "metrics.jsonl")
    assert [row["step"] for row in found if row["kind"] == "meeting"] == [2, 4, 6, 8]
    assert Counter(row["kind"] for row in found if row["kind"] != "regrowth") == {
        "train": 8,
        "meeting": 4,
        "rewire": 1,
        "eval": 1,
    }
    shutil.copytree(folder / "run", folder / "again")
    for step in (6, 8):
        shutil.rmtree(folder / "again" / "checkpoints" / str(step))
    (folder / "again" / "result.json").unlink()
    train(run, folder / "again", extend=False, console=quiet_console())
    ends = []
    for name in ("run", "again"):
        with Checkpoints(folder / name, keep_last=2, keep_every=0, notice=print) as saved:
            ends.append(jax.device_get(saved.restore(lambda _: placed(recipe))))
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, ends), strict=True))
    assert losses(folder / "run") == losses(folder / "again")
    # What evaluation and export read: the weights of the last meeting.
    assert restore_run(folder / "run", print).recipe.mesh is None


def losses(directory: Path) -> dict[int, float]:
    rows = read_rows(directory / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def test_the_last_step_is_a_meeting(recipe: Recipe) -> None:
    assert [step for step in range(1, 9) if meets(recipe, step)] == [2, 4, 6, 8]
    assert meets(dataclasses.replace(recipe, steps=7), 7)
    together = dataclasses.replace(
        recipe, run=dataclasses.replace(recipe.run, outer=dataclasses.replace(recipe.run.outer, every=1))
    )
    assert not meets(together, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outer_bits": 8}, "outer.bits=8: must be 2 or 32"),
        ({"mesh_replica": 1}, "outer.every=2: needs replicas that meet; set mesh.replica, or outer.every=1"),
        ({"topology_every": 5}, "topology.every=5: must be a multiple of outer.every=2,"),
        ({"topology_fade_steps": 1}, "topology.fade_steps=1: replicas that train apart cannot fade; set it to 0"),
        ({"topology_grow": "momentum", "topology_score_steps": 1}, "topology.grow=momentum: remembers gradients"),
        ({"optim_form": "galore", "topology_density": 1.0}, "optim.form=galore: replicas would have other"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    settings = tiny_settings(tmp_path, **(APART | changes))
    with pytest.raises(ConfigError) as caught:
        resolve(settings)
    assert str(caught.value).startswith(message)
