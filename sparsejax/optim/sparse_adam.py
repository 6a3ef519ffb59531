"""Adam over active blocks as an Optax transformation: one age per block, and a state that follows a rewiring.

The update rule, in its three forms, is in ``forms.py``. Leaves are named by their path: keys joined by ``/``, for
example ``layers/attention/q/values``. Axes: n slots, bk x bn the block, behind any number of stacked layers.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax.optim.forms import AdamRule, Form, adam_step, at_least_float32
from sparsejax.optim.paths import settings_at
from sparsejax.optim.rounding import stochastic_round
from sparsejax.optim.slot_state import SLOT_FIELDS, check_maps, kept_for
from sparsejax.optim.weight_average import averaged_weights, started_at, with_averaged_weights
from sparsejax.topology.slots import gather_slots

MomentDtype = Literal["float32", "bfloat16"]

_NO_DENSITIES: Mapping[str, jax.Array] = MappingProxyType({})


class SparseAdamState(NamedTuple):
    """State of ``scale_by_sparse_adam``.

    Attributes:
      count: ``[]`` int32, updates since the start.
      mu: first moments, the structure and shapes of the parameters.
      nu: second moments, the same.
      ages: for the path of every block-sparse leaf ``[..., n]`` int32, updates since each block was grown. A block
        is regrown if its age is below ``count``. Dense leaves have no entry.
    """

    count: jax.Array  # type: ignore[assignment]  # the field's usual name, also a method of tuple
    mu: Any
    nu: Any
    ages: dict[str, jax.Array]


def scale_by_sparse_adam(
    densities: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    form: Form = "smet",
    density_exponent: float = 0.5,
    ramp: int = 100,
    moment_dtype: MomentDtype = "float32",
    rounding_seed: int = 0,
    without_blocks: Collection[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """Rescale gradients by Adam with a step count, a ramp and a density scale per block (equations: ``forms.py``).

    Args:
      densities: floats in (0, 1], found by path at the leaves that are there (``paths.py``): a tree like the
        parameters, one value for a whole subtree, or a function that makes the tree. Below 1 a leaf is block-sparse,
        ``values [..., n, bk, bn]``, with one age per block; at 1 it is dense, of any shape.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      form: ``"smet"`` (arXiv 2606.00888), ``"naive"`` or ``"smet_code"`` (its published code).
      density_exponent: p in the scale d^-p. The paper's text has 0.5, its published launch settings follow 1.
      ramp: W, updates over which a regrown block warms up.
      moment_dtype: ``"float32"`` stores at least float32 (float64 parameters keep float64 moments);
        ``"bfloat16"`` stores half the bytes by stochastic rounding. The arithmetic is the same.
      rounding_seed: the rounding is a function of (seed, count, leaf number).
      without_blocks: paths of leaves that have a density below 1 and no blocks: dense master weights, factors. They
        are updated as dense leaves, scaled by d^-p.

    Returns:
      An optax transformation with a ``SparseAdamState``. Updates come out in float32, or float64 for float64
      gradients, along the gradient: multiply by a negative learning rate. Regrown blocks rely on ``remap``. Densities
      that move are given to ``update`` as ``densities_now``, float32 scalars by path.

    Raises:
      ValueError: a hyperparameter out of range; from ``init`` and ``update``, ``densities`` that do not fit.
    """
    rule = AdamRule(b1, b2, eps, form, density_exponent, ramp)
    if isinstance(rounding_seed, bool) or not (isinstance(rounding_seed, int | jax.Array | np.integer)):
        raise ValueError(f"rounding_seed={rounding_seed!r}: must be a whole number")
    if moment_dtype not in get_args(MomentDtype):
        raise ValueError(f"moment_dtype={moment_dtype!r}: not one of {', '.join(get_args(MomentDtype))}")

    def init(params: optax.Params) -> SparseAdamState:
        return _init(params, densities, moment_dtype, without_blocks)

    def update(
        updates: optax.Updates,
        state: SparseAdamState,
        params: optax.Params | None = None,
        *,
        densities_now: Mapping[str, jax.Array] = _NO_DENSITIES,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SparseAdamState]:
        del params, extra_args
        return _update(rule, densities, densities_now, rounding_seed, updates, state)

    return optax.GradientTransformationExtraArgs(init, update)


def remap(opt_state: Any, old_slots: Mapping[str, jax.Array], shards: int = 1, params: Any = None) -> Any:
    """Carry the optimizer state of rewired weights over to their new slots.

    Moments and ages of kept blocks move with them; a regrown block, and a free slot, gets moments 0 and age 0. What
    else is kept by slot moves too: gradients that ``optax.MultiSteps`` has summed, and the other states of
    ``SLOT_FIELDS``. An average of the weights (``weight_average.py``) starts at the new weights of a regrown block.
    Pure and jittable; leaves that are not named stay as they are.

    Args:
      opt_state: any optax state (of a chain, a mask, ``nnx.Optimizer``) that contains a ``SparseAdamState``.
      old_slots: for the path of every rewired leaf ``[..., n]`` int32: new slot -> old slot, -1 where the block was
        regrown or the slot is free.
      shards: shares of every named weight, see ``gather_slots``.
      params: the parameters after the rewiring; needed where an average of the weights is kept.

    Returns:
      ``opt_state`` with what belongs to slots moved.

    Raises:
      ValueError: no ``SparseAdamState``, a path that is no block-sparse leaf, a map of another shape or with slots that
        are not there, a state that keeps blocks in a way not known here, or an average without ``params``.
    """
    check_maps(ages_of(opt_state), old_slots, shards)
    moves = {
        path: functools.partial(gather_slots, old_slot=old_slot, shards=shards) for path, old_slot in old_slots.items()
    }
    moved = remap_state(opt_state, moves)
    average = averaged_weights(moved)
    if average is None:
        return moved
    if params is None:
        raise ValueError("the optimizer state keeps an average of the weights: remap needs the new parameters")
    return with_averaged_weights(moved, started_at(average, params, old_slots))


def remap_state(opt_state: Any, moves: Mapping[str, Callable[[jax.Array], jax.Array]]) -> Any:
    """Apply ``moves[path]`` to all that the state keeps for the slots of each named block-sparse leaf.

    Args:
      opt_state: any optax state that contains a ``SparseAdamState``.
      moves: for the path of every leaf to change a function of an array ``[..., n]`` or ``[..., n, bk, bn]``.

    Returns:
      ``opt_state`` with moments, ages, sums of gradients and the average of the weights moved.

    Raises:
      ValueError: no ``SparseAdamState``, a path that is no block-sparse leaf, or a state not known here that holds an
        array of the leaf's shape.
    """
    ages = ages_of(opt_state)
    for path in moves:
        if path not in ages:
            raise ValueError(f"old_slots names {path}, which is no block-sparse leaf; those are {sorted(ages)}")

    def follow(key_path: Any, leaf: jax.Array) -> jax.Array:
        found = kept_for(key_path, ages)
        if found is None or found[1] not in moves or leaf.shape[: ages[found[1]].ndim] != ages[found[1]].shape:
            return leaf
        holder, path = found
        if holder not in SLOT_FIELDS:
            raise ValueError(
                f"the optimizer state keeps an array by the slots of {path} under {holder or 'no name'!r}, which remap "
                f"cannot move; it moves {', '.join(sorted(SLOT_FIELDS))}"
            )
        return moves[path](leaf)

    return jax.tree_util.tree_map_with_path(follow, opt_state)


def ages_of(opt_state: Any) -> dict[str, jax.Array]:
    """The ages ``[..., n]`` of all block-sparse leaves by path, of every ``SparseAdamState`` inside.

    Raises:
      ValueError: there is none.
    """
    found = _states(opt_state)
    if not found:
        raise ValueError("the optimizer state contains 0 SparseAdamState instead of one")
    return {path: jax.tree.leaves(age)[0] for state in found for path, age in state.ages.items()}


def sparse_adam_state(opt_state: Any) -> SparseAdamState:
    """The one ``SparseAdamState`` inside any optax state, for reading (bytes of moments, ages of blocks).

    Raises:
      ValueError: there is none, or more than one.
    """
    found = _states(opt_state)
    if len(found) != 1:
        raise ValueError(f"the optimizer state contains {len(found)} SparseAdamState instead of one")
    return found[0]


def _init(params: Any, densities: Any, moment_dtype: MomentDtype, without_blocks: Collection[str]) -> SparseAdamState:
    ages = {}
    for path, leaf, density in _with_densities(params, densities):
        _check_density(path, density)
        if density < 1.0 and path not in without_blocks:
            if leaf.ndim < 3:
                raise ValueError(f"{path} has shape {leaf.shape}: at density {density} it must be [..., n, bk, bn]")
            ages[path] = jnp.zeros(leaf.shape[:-2], jnp.int32)

    def zeros(leaf: jax.Array) -> jax.Array:
        dtype = jnp.bfloat16 if moment_dtype == "bfloat16" else at_least_float32(leaf.dtype)
        return jnp.zeros(leaf.shape, dtype)

    return SparseAdamState(
        count=jnp.zeros((), jnp.int32), mu=jax.tree.map(zeros, params), nu=jax.tree.map(zeros, params), ages=ages
    )


def _check_density(path: str, density: Any) -> None:
    if isinstance(density, jax.core.Tracer):
        raise ValueError(f"the density of {path} is traced: inject_hyperparams needs static_args='densities'")
    number = isinstance(density, numbers.Real) or getattr(density, "ndim", None) == 0
    if isinstance(density, bool) or not number or not 0.0 < float(density) <= 1.0:
        raise ValueError(f"the density of {path} is {density}: must be in (0, 1]")


def _update(
    rule: AdamRule,
    densities: Any,
    densities_now: Mapping[str, jax.Array],
    seed: int,
    updates: Any,
    state: SparseAdamState,
) -> tuple[Any, SparseAdamState]:
    count = state.count + 1
    ages = {path: age + 1 for path, age in state.ages.items()}
    old = zip(jax.tree.leaves(state.mu), jax.tree.leaves(state.nu), strict=True)
    new = []
    for number, ((path, g, density), (m, v)) in enumerate(zip(_with_densities(updates, densities), old, strict=True)):
        age = ages[path][..., None, None] if path in ages else count
        now = densities_now[path] if path in densities_now else density
        direction, new_m, new_v = adam_step(rule, g, m, v, count, age, now)
        stored_m = _store(new_m, m.dtype, seed, count, 2 * number)
        stored_v = _store(new_v, v.dtype, seed, count, 2 * number + 1)
        new.append((direction, stored_m, stored_v))
    tree = jax.tree.structure(updates)
    directions, mu, nu = (jax.tree.unflatten(tree, [leaf[i] for leaf in new]) for i in range(3))
    return directions, SparseAdamState(count=count, mu=mu, nu=nu, ages=ages)


def _store(moment: jax.Array, dtype: Any, seed: int, count: jax.Array, number: int) -> jax.Array:
    """The moment in its storage dtype; ``number`` tells the moments of one update apart."""
    if dtype != jnp.bfloat16:
        return moment.astype(dtype)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), number)
    return stochastic_round(moment.astype(jnp.float32), key)


def _with_densities(tree: Any, densities: Any) -> list[tuple[str, jax.Array, float]]:
    """Path, leaf and density of every leaf of a tree of parameters or gradients."""
    return settings_at(tree, densities, "densities")


def _states(opt_state: Any) -> list[SparseAdamState]:
    return [node for node in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(node)]


def _is_state(node: Any) -> bool:
    return isinstance(node, SparseAdamState)
