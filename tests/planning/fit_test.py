"""What a check says of a run is what the run does: same programs, same bytes, the traffic of the formula."""

import dataclasses

import jax
import numpy as np
import pytest

from sparsejax.config import ConfigError, MeshConfig
from sparsejax.hardware.systems import parse_system
from sparsejax.planning import compiling, estimate
from sparsejax.planning.facts import Facts
from sparsejax.planning.fit import TEACHER, axes_bandwidth, fit_of
from sparsejax.planning.footprint import local_bytes, state_bytes
from sparsejax.planning.traffic import step_traffic
from sparsejax.training import programs
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.mesh import make_mesh
from sparsejax.training.rewire_plan import plan_at
from tests.training.tiny import tiny_run

CPU_8 = parse_system("cpu:8")
FACTS = Facts(steps=12, vocab_size=257, start_id=256)
MESH = {"mesh_replica": 2, "mesh_fsdp": 2, "mesh_tensor": 2, "topology_shards": 2}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    run = tiny_run(tmp_path_factory.mktemp("fit"), **MESH, model_remat="full")
    return compiling.recipe_on(run, FACTS, CPU_8)


@pytest.fixture(scope="module")
def fit(recipe):
    return fit_of(recipe, CPU_8, programs=(compiling.TRAIN,))


@pytest.fixture(scope="module")
def trained(recipe):
    """State and batch as the trainer holds them."""
    state = programs.init_state(recipe)
    return state, np.zeros((recipe.run.train.batch_size, recipe.run.data.sequence_length), np.int32)


def on_first_device(tree):
    """Bytes that arrays really take on device 0."""
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


def test_the_programs_are_the_trainers(recipe, trained):
    state, batch = trained
    checked = compiling.lower_programs(recipe, jax.devices()[0], (compiling.TRAIN, compiling.REWIRE))
    step = programs.train_step(recipe).lower(state, batch, recipe.rates)
    rewiring = programs.rewire_step(recipe).lower(state, plan_at(recipe, 3), NO_SCORES)
    assert checked[compiling.TRAIN].as_text() == step.as_text()
    assert checked[compiling.REWIRE].as_text() == rewiring.as_text()


def test_the_bytes_are_the_runs_buffers(fit, recipe, trained):
    state, batch = trained
    assert sum(fit.state.values()) == on_first_device(state)
    batch_bytes = batch.nbytes // 4  # four parts: replica x fsdp
    real = on_first_device(state) + batch_bytes + recipe.rates.nbytes
    assert fit.programs[compiling.TRAIN].arguments == pytest.approx(real, rel=0.05)
    assert fit.fits and fit.compiled and fit.needed >= real


def test_every_kind_of_state_is_told_apart(fit, trained):
    state, _ = trained
    values = [state.params["layers"][room][kind]["values"] for room, kind in (("attention", "q"), ("mlp", "down"))]
    assert state_bytes(state) == fit.state
    assert fit.state["moments"] == 2 * fit.state["values"] > 2 * local_bytes(values)
    assert fit.state["their moments"] == 2 * fit.state["other parameters"]
    assert fit.state["ages"] > 0 and fit.state["indices"] > fit.state["ages"]


def check_traffic(fit):
    """Scale vectors and scalars, which the formula leaves out, are the rest; payloads, for compilers choose kinds."""
    formula, compiled = step_traffic(fit.work), fit.traffic
    for axes in (("fsdp",), ("tensor",), ("fsdp", "tensor")):
        by_formula, found = (
            sum(each.payload * (2 if each.kind == "all-reduce" else 1) for each in traffic if each.axes == axes)
            for traffic in (formula, compiled)
        )
        assert found == pytest.approx(by_formula, rel=0.05, abs=600), axes
    assert {each.axes for each in compiled if each.axes == ("replica",)} == {("replica",)}


def test_the_compiled_traffic_is_that_of_the_formula(fit):
    check_traffic(fit)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("taught", [{}, {"init_feature_weight": 0.0}, {"init_feature_weight": 1.0}], ids=str)
def test_the_traffic_of_recomputed_and_taught_steps_is_that_of_the_formula(tmp_path, remat, taught):
    teacher = taught and {"init_from": "dense", "init_distill_weight": 0.5, **taught}
    run = tiny_run(tmp_path, **MESH, model_remat=remat, **teacher)
    check_traffic(fit_of(compiling.recipe_on(run, FACTS, CPU_8), CPU_8, programs=(compiling.TRAIN,)))


def test_too_little_memory_does_not_fit(fit):
    assert not dataclasses.replace(fit, limit=fit.needed - 1).fits
    assert dataclasses.replace(fit, limit=fit.needed).fits


def test_without_a_tpu_compiler_it_is_one_line(monkeypatch):
    def describe(system):
        raise RuntimeError("JAX TPU support not installed\nsee the documentation")

    monkeypatch.setattr(compiling, "described_devices", describe)
    with pytest.raises(ConfigError, match=r"--hardware=v5e:4x4: JAX TPU support not installed .*extra 'tpu'") as caught:
        compiling.devices_of(parse_system("v5e:4x4"))
    assert "\n" not in str(caught.value)


def test_axes_are_as_fast_as_the_nodes_they_stay_in():
    system = parse_system("h100:16")
    mesh = make_mesh(MeshConfig(replica=2, fsdp=4, tensor=1, sequence=False), jax.devices())
    assert axes_bandwidth(system, mesh, ("fsdp",)) == 450e9
    with pytest.raises(ValueError, match="no links"):
        axes_bandwidth(CPU_8, mesh, ("fsdp",))


def test_a_teacher_is_counted(tmp_path):
    taught = {"init_from": "dense", "init_distill_weight": 0.5, "topology_density": 0.25}
    runs = [tiny_run(tmp_path, **MESH, **changes) for changes in ({"topology_density": 0.25}, taught)]
    plain, fit = (fit_of(compiling.recipe_on(run, FACTS, CPU_8), CPU_8, programs=()) for run in runs)
    # Float32 on one device: a quarter of embedding and head and of two layers' matrices, and all norm scales.
    held = 4 * (2 * 257 * 16 // 4 + 2 * (4 * 16 * 16 + 3 * 16 * 32) // 4 + 5 * 16)
    assert fit.state == plain.state | {TEACHER: held} and TEACHER not in plain.state
    assert fit.estimated - plain.estimated == held + fit.estimate[estimate.TEACHER] > held
    # A forward pass of the dense model: per token and layer 2 (4 * 16 * 16 + 3 * 16 * 32), attention, and the head.
    assert fit.executed - plain.executed == 64 * (2 * (2 * 2560 + 4 * 16 * 16) + 2 * 16 * 257)
    assert fit.theoretical == plain.theoretical
    compiling.lower_programs(fit.recipe, jax.devices()[0], (compiling.TRAIN,))
