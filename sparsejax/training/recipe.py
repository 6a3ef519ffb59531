"""The static half of a run: what its programs close over. Built on the host, before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from sparsejax.config import ConfigError, ModelConfig, RunConfig
from sparsejax.hardware.target import Target
from sparsejax.kernels import auto
from sparsejax.models import attention, functional
from sparsejax.models.flow import with_flow
from sparsejax.models.llama import Llama
from sparsejax.models.parallel import ALONE, Parallel
from sparsejax.models.shapes import DecoderShape, shape_of_model
from sparsejax.models.weight_table import SparseWeight, local_weight, mlp_width, weight_table
from sparsejax.optim.build import build_optimizer
from sparsejax.optim.schedules import learning_rate
from sparsejax.optim.unused_decay import add_unused_decay
from sparsejax.topology import stats
from sparsejax.topology.blocks import BlockGrid, BlockIndex, FlatIndex, Index
from sparsejax.topology.density_path import decays, stair_steps
from sparsejax.topology.growth import REMEMBERING, no_memory
from sparsejax.topology.nm import NmPattern
from sparsejax.topology.rewire import drop_count
from sparsejax.training.state import TrainState, Tree, train_apart

# The leaves that decoupled weight decay leaves alone.
_UNDECAYED = frozenset({"scale", "embedding"})
# Modules as wide as the vocabulary.
_VOCABULARY = frozenset({"embed", "head"})
_RATES = 4096


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Model, optimizer and weight table of one run.

    Attributes:
      run: the resolved configuration.
      steps: optimizer steps of the whole run.
      vocab_size: rows of the embedding.
      start_id: token in front of every row.
      stage: step whose slots the arrays have; 0 unless the density falls, see ``topology.density_path``.
      weights: the weight kinds with their grids and counts, dense kinds included.
      implementations: ``block_matmul`` implementation of each sparse kind, resolved from ``auto``.
      attention: what computes it, resolved from ``auto``.
      mesh: the devices that share the work; None if there is one.
      parallel: its sizes.
      graphdef: the model of one device without its arrays; ``functional.merge`` with the params and topology of that
        device gives it back.
      build: makes the model with fresh arrays, a pure function of ``(init_seed, topology_seed)``.
      abstract: shapes and dtypes of the whole ``TrainState``.
      optimizer: the Optax chain, whose updates are still to be multiplied by minus the learning rate.
    """

    run: RunConfig
    steps: int
    vocab_size: int
    start_id: int
    target: Target
    stage: int
    weights: Mapping[str, SparseWeight]
    implementations: Mapping[str, str]
    attention: attention.AttentionChoice
    mesh: Mesh | None
    parallel: Parallel
    graphdef: nnx.GraphDef
    build: Callable[[int | jax.Array, int | jax.Array], Llama]
    abstract: TrainState
    optimizer: optax.GradientTransformationExtraArgs

    @property
    def shape(self) -> DecoderShape:
        """Widths as used, for accounting."""
        return shape_of_model(self.run.model, mlp_width(self.run.model, self.run.topology), self.vocab_size)

    @property
    def sparse(self) -> dict[str, SparseWeight]:
        """The kinds stored as blocks."""
        return {name: weight for name, weight in self.weights.items() if weight.packed}

    @property
    def initial(self) -> dict[str, SparseWeight]:
        """The sparse kinds with the counts that the run starts with."""
        table = weight_table(self.run.model, self.run.topology, 0, self.steps, fsdp=self.parallel.fsdp)
        return {name: table[name] for name in self.sparse}

    @cached_property
    def dense(self) -> Recipe:
        """The recipe of the dense twin, see ``dense_twin``."""
        return dense_twin(self)

    @property
    def replicas(self) -> int:
        """Replicas that train apart; 1 where gradients are summed every step."""
        return self.run.mesh.replica if self.run.outer.every > 1 else 1

    @property
    def rewires(self) -> bool:
        """Whether the topology of this run ever changes."""
        return self.run.topology.drop != "none" and bool(self.sparse)

    @property
    def rates(self) -> jax.Array:
        """Learning rate of every update of the run, ``[at least steps]`` float32: an argument of the train step.

        Its length is a multiple of ``_RATES``, so that runs of other lengths share one compiled program; the last
        rate is repeated.
        """
        length = -(-self.steps // _RATES) * _RATES
        return jax.vmap(learning_rate(self.run.optim, self.steps))(jnp.arange(length)).astype(jnp.float32)

    def at_stage(self, step: int) -> Recipe:
        """The recipe of the same run with the slots and the counts that its weights have after ``step``."""
        return self.of(self.run, step) if decays(self.run.topology) else self

    def in_use_after(self, step: int) -> Recipe:
        """The recipe whose programs a run that was never stopped has after ``step``.

        It is the one made where slots were last cut, the same from there to the next cut. What a program holds, such as
        the choice of a kernel by density, is then the same in a run that was continued in between.
        """
        if not decays(self.run.topology):
            return self
        made, slots = 0, self._slots_after(0)
        for cut in stair_steps(self.run.topology, self.steps):
            if cut <= step and self._slots_after(cut) != slots:
                made, slots = cut, self._slots_after(cut)
        return self.at_stage(made)

    def _slots_after(self, step: int) -> dict[str, int]:
        table = weight_table(self.run.model, self.run.topology, step, self.steps, fsdp=self.parallel.fsdp)
        return {name: table[name].capacity for name in self.sparse}

    def of(self, run: RunConfig, stage: int) -> Recipe:
        """The recipe of another run as long as this one, with the same tokenizer, target and devices."""
        return build_recipe(
            run,
            steps=self.steps,
            vocab_size=self.vocab_size,
            start_id=self.start_id,
            target=self.target,
            mesh=self.mesh,
            stage=stage,
        )


def build_recipe(
    run: RunConfig,
    *,
    steps: int,
    vocab_size: int,
    start_id: int,
    target: Target,
    mesh: Mesh | None = None,
    stage: int = 0,
) -> Recipe:
    """Build and check the static half of a run.

    Args:
      run: the resolved configuration.
      steps: optimizer steps of the whole run.
      vocab_size: size of the tokenizer.
      start_id: the tokenizer's start token.
      target: what the programs will run on; ``auto`` is resolved for it.
      mesh: the devices, as ``mesh.make_mesh`` lays out those of a settled run; None is one device.
      stage: the step whose slots the arrays shall have; matters only where the density falls.

    Raises:
      ConfigError: a block, share or drop rate that cannot work for one of the weights, or more learning-rate
        restarts than the run has steps for.
    """
    learning_rate(run.optim, steps)
    parallel = ALONE if mesh is None else Parallel(**mesh.shape, sequence=run.mesh.sequence)
    weights = weight_table(run.model, run.topology, stage, steps, fsdp=parallel.fsdp)
    sparse = {name: weight for name, weight in weights.items() if weight.packed}
    _check_rate(run, sparse)
    local = {name: local_weight(weight, parallel.tensor) for name, weight in weights.items()}
    implementations = {name: _implementation(run.model, local[name], target) for name in sparse}
    chosen = _attention(run, target)
    make = partial(Llama, vocab_size=vocab_size, implementations=implementations, attention=chosen.name)
    build = partial(make, run.model, weights)
    seeds = run.seeds.init, run.seeds.topology
    model = functional.abstract(partial(build, *seeds))
    of_device = partial(make, _local_model(run.model, parallel), local, *seeds, parallel=parallel)
    optimizer = _optimizer(run, weights, model.params)
    abstract = jax.eval_shape(partial(_fresh_state, run, sparse, optimizer), model.params, model.topology)
    return Recipe(
        run,
        steps,
        vocab_size,
        start_id,
        target,
        stage,
        weights,
        implementations,
        chosen,
        None if parallel.alone else mesh,
        parallel,
        functional.abstract(of_device).graphdef,
        build,
        abstract,
        optimizer,
    )


def _optimizer(
    run: RunConfig, weights: Mapping[str, SparseWeight], params: Tree
) -> optax.GradientTransformationExtraArgs:
    return build_optimizer(
        run.optim,
        densities=_density_tree(params, weights),
        decay_mask=jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in _UNDECAYED, params),
        vocabulary_mask=jax.tree_util.tree_map_with_path(lambda path, _: path[0].key in _VOCABULARY, params),
        rounding_seed=run.seeds.init,
        without_blocks=[path for weight in weights.values() if not weight.packed for path in leaf_paths(weight)],
        pulls=_pulls(run, weights, params),
    )


def dense_twin(recipe: Recipe) -> Recipe:
    """The recipe of the same model with every weight dense: same widths, same optimizer form, no topology.

    GaLore is dense already; its twin has plain Adam, beside which its moments are small.
    """
    topology = dataclasses.replace(
        recipe.run.topology,
        method="dense",
        density=1.0,
        rules=(),
        drop="none",
        grow="none",
        density_schedule="constant",
        flow="none",
    )
    adam = dataclasses.replace(recipe.run.optim, form="naive")
    optim = adam if recipe.run.optim.form == "galore" else recipe.run.optim
    # It is what the run would be compared with, so it has no start and no teacher of its own.
    init = dataclasses.replace(recipe.run.init, from_="", distill_weight=0.0, feature_weight=0.0)
    run = dataclasses.replace(recipe.run, topology=topology, optim=optim, init=init)
    return recipe.of(run, stage=0)


def fresh_state(recipe: Recipe, init_seed: jax.Array, topology_seed: jax.Array) -> TrainState:
    """The state before the first step, a pure function of the seeds; see ``programs.init_state``."""
    return starting_state(recipe, *functional.initial_trees(partial(recipe.build, init_seed, topology_seed)))


def starting_state(recipe: Recipe, params: Tree, topology: Tree) -> TrainState:
    """The state before the first step of a run that starts from these weights, wherever they come from."""
    topology = with_flow(topology, recipe.run, jnp.int32(0), recipe.steps)
    return _fresh_state(recipe.run, recipe.sparse, recipe.optimizer, params, topology)


def _fresh_state(
    run: RunConfig,
    sparse: Mapping[str, SparseWeight],
    optimizer: optax.GradientTransformationExtraArgs,
    params: Tree,
    topology: Tree,
) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    moving = sparse if run.topology.drop != "none" else {}
    explored = {name: explored_bits(index_of(topology, name), weight.grid) for name, weight in moving.items()}
    scores = {
        name: no_memory(run.topology.grow, run.model.layers, weight.grid)
        for name, weight in moving.items()
        if run.topology.grow in REMEMBERING
    }
    state = TrainState(zero, params, topology, optimizer.init(params), zero, zero, explored, scores)
    return train_apart(state, run.mesh.replica) if run.outer.every > 1 else state


def explored_bits(index: Index, grid: BlockGrid) -> jax.Array:
    """One bit a place, ``[L, ceil(cells / 8)]`` uint8, set where a stacked index has a block."""
    return jax.vmap(lambda one: jnp.packbits(stats.activity(one, grid).reshape(-1)))(index)


def index_of(topology: Tree, name: str) -> Index:
    """The (stacked) index of one weight kind, for example ``"attention.q"``."""
    room, weight = name.split(".")
    arrays = topology["layers"][room][weight]
    return FlatIndex(**arrays) if "flat" in arrays else BlockIndex(**arrays)


def with_index(topology: Tree, name: str, index: Index) -> Tree:
    """The topology tree with the index of one kind replaced."""
    room, weight = name.split(".")
    arrays = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
    layers = topology["layers"]
    return topology | {"layers": layers | {room: layers[room] | {weight: arrays}}}


def values_of(params: Tree, name: str) -> jax.Array:
    """The stacked values ``[L, n, bk, bn]`` of one sparse kind."""
    room, weight = name.split(".")
    return params["layers"][room][weight]["values"]


def with_values(params: Tree, name: str, values: jax.Array) -> Tree:
    """The parameter tree with the values of one sparse kind replaced."""
    room, weight = name.split(".")
    layers = params["layers"]
    return params | {"layers": layers | {room: layers[room] | {weight: {"values": values}}}}


def values_path(name: str) -> str:
    """The '/'-joined path of a sparse kind's values, as the optimizer names them."""
    room, weight = name.split(".")
    return f"layers/{room}/{weight}/values"


def leaf_paths(weight: SparseWeight) -> list[str]:
    """The '/'-joined paths of a kind's parameters."""
    room, kind = weight.name.split(".")
    return [f"layers/{room}/{kind}/{leaf}" for leaf in weight.leaves]


def _density_tree(params: Tree, weights: Mapping[str, SparseWeight]) -> Any:
    # Below 1 marks packed leaves as blocks, even those still full because their density will fall.
    almost = 1.0 - 2.0**-20
    by_path = {
        path: min(weight.density, almost) if weight.packed else weight.density
        for weight in weights.values()
        for path in leaf_paths(weight)
    }

    def density(path: tuple[Any, ...], _: Any) -> float:
        joined = _joined(path)
        return by_path[joined] if joined in by_path else 1.0

    return jax.tree_util.tree_map_with_path(density, params)


def _pulls(
    run: RunConfig, weights: Mapping[str, SparseWeight], params: Tree
) -> list[optax.GradientTransformationExtraArgs]:
    """SR-STE's pull of unused weights; none without N:M, and none where a flow brings N:M, as its paper has it."""
    paths = {path for each in weights.values() if each.storage == "dense_master" for path in leaf_paths(each)}
    if not paths or run.topology.flow != "none" or run.topology.ste_decay == 0.0:
        return []
    masked = jax.tree_util.tree_map_with_path(lambda path, _: _joined(path) in paths, params)
    return [add_unused_decay(run.topology.ste_decay, NmPattern(*run.topology.nm, run.topology.flow), masked)]


def _joined(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)


def _implementation(model: ModelConfig, weight: SparseWeight, target: Target) -> str:
    grid, density = weight.grid, weight.density
    return auto.resolve(model.implementation, target=target, grid=grid, density=density, dtype=model.compute_dtype)


def _local_model(model: ModelConfig, parallel: Parallel) -> ModelConfig:
    """The model whose products one device of the tensor axis makes: its own heads, all of the residual stream."""
    return dataclasses.replace(model, heads=model.heads // parallel.tensor, kv_heads=model.kv_heads // parallel.tensor)


def _attention(run: RunConfig, target: Target) -> attention.AttentionChoice:
    model, length = run.model, run.data.sequence_length
    return attention.resolve(
        model.attention, target=target, head_dim=model.head_dim, length=length, dtype=model.compute_dtype
    )


def _check_rate(run: RunConfig, sparse: Mapping[str, SparseWeight]) -> None:
    """A rate that rounds to no block at all would silently freeze a weight for the whole run."""
    topology = run.topology
    if topology.drop == "none" or decays(topology):
        return
    for name, weight in sparse.items():
        active = weight.count // weight.grid.shards
        count = drop_count(topology.rate, weight.grid, active, topology.regrow_dropped)
        if count < 1:
            raise ConfigError(
                f"topology.rate={topology.rate:g}: replaces none of the {active} blocks a share of {name} has "
                f"({weight.grid.cells_per_share} places); use a higher rate, smaller blocks, another density "
                "or topology.method=static"
            )
        if topology.drop == "global_magnitude" and weight.capacity - weight.count < count * weight.grid.shards:
            raise ConfigError(
                f"topology.capacity_slack={topology.capacity_slack:g}: {name} has {weight.capacity} slots for "
                f"{weight.count} blocks, too few to grow what other weights drop; use at least {1 + topology.rate:g}, "
                "or a lower density"
            )
