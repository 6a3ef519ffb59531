"""An exponential moving average of the weights, as an Optax stage whose state follows rewirings.

With decay ``b`` and ``w_t`` the weights after update ``t``, counted from 1, the average is

    a_t = (1 - b) / (1 - b^t) * sum over k = 1 ... t of b^(t - k) w_k

It is kept as itself, not as a sum that is still to be divided, by the same recursion with a decay that rises:

    a_t = b_t a_(t - 1) + (1 - b_t) w_t        b_t = b (1 - b^(t - 1)) / (1 - b^t)

This is Adam's bias correction (Kingma and Ba, arXiv 1412.6980) in the form that Adafactor uses (Shazeer and Stern,
arXiv 1804.04235). The random first weights have no part in it, there is no warm-up to choose, and what is stored can
be used at any step.

**Rewiring.** A kept block takes its average along. A regrown block starts at its new value and is averaged with the
decay of all others. Where it starts at 0, this is the average of the dense matrix in which an inactive place holds 0,
read where blocks are active now; its past zeros count. An age of its own would forget them, and would make the youngest
blocks of the average the least averaged ones. Free slots hold 0.

Leaves are named by their path: keys joined by ``/``. Everything is float32, or float64 for float64 weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.optim.forms import at_least_float32
from sparsejax.optim.paths import leaf_path


class WeightAverageState(NamedTuple):
    """State of ``average_weights``.

    Attributes:
      count: ``[]`` int32, weights that are averaged.
      weights: their average, the structure and shapes of the parameters; the first weights while ``count`` is 0.
    """

    count: jax.Array  # type: ignore[assignment]  # the field's usual name, also a method of tuple
    weights: Any


def average_weights(decay: float) -> optax.GradientTransformationExtraArgs:
    """Average the weights that each update leads to; the updates pass through. The last stage of a chain.

    ``update`` takes one extra argument, ``step_size``: what the caller multiplies the updates by before it adds them,
    1 where they are added as they are. The weights averaged are ``params + step_size * updates``, so ``params`` are
    needed.

    Args:
      decay: b, in (0, 1).

    Returns:
      An optax transformation with a ``WeightAverageState``.

    Raises:
      ValueError: a decay out of range; from ``update``, no parameters.
    """
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay={decay}: must be in (0, 1)")

    def init(params: optax.Params) -> WeightAverageState:
        # Copies: a caller may donate the parameters and the state.
        start = jax.tree.map(lambda leaf: jnp.array(leaf, at_least_float32(leaf.dtype), copy=True), params)
        return WeightAverageState(jnp.zeros((), jnp.int32), start)

    def update(
        updates: optax.Updates,
        state: WeightAverageState,
        params: optax.Params | None = None,
        *,
        step_size: jax.typing.ArrayLike = 1.0,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightAverageState]:
        del extra_args
        if params is None:
            raise ValueError("average_weights: update needs the parameters")
        count = state.count + 1
        share = newest_share(decay, count)
        new = optax.apply_updates(params, jax.tree.map(lambda leaf: step_size * leaf, updates))
        weights = jax.tree.map(lambda a, w: a + share.astype(a.dtype) * (w.astype(a.dtype) - a), state.weights, new)
        return updates, WeightAverageState(count, weights)

    return optax.GradientTransformationExtraArgs(init, update)


def newest_share(decay: float, count: jax.Array) -> jax.Array:
    """``1 - b_t = (1 - b) / (1 - b^t)`` for ``t = count`` of at least 1; ``expm1`` does not cancel for b near 1."""
    return (1.0 - decay) / -jnp.expm1(count.astype(jnp.float32) * math.log(decay))


def averaged_weights(opt_state: Any) -> Any:
    """The average inside any optax state, or None if none is kept.

    Raises:
      ValueError: there is more than one.
    """
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(node)]
    if len(found) > 1:
        raise ValueError(f"the optimizer state contains {len(found)} averages of the weights instead of one")
    return found[0].weights if found else None


def with_averaged_weights(opt_state: Any, weights: Any) -> Any:
    """``opt_state`` with the average replaced; as it is where none is kept."""
    return jax.tree.map(
        lambda node: node._replace(weights=weights) if _is_state(node) else node, opt_state, is_leaf=_is_state
    )


def started_at(average: Any, weights: Any, old_slots: Mapping[str, jax.Array]) -> Any:
    """The average with the slots of regrown blocks, and free slots, at the weights that they have now.

    Args:
      average: already moved to the new slots.
      weights: after the rewiring, the same leaves by path.
      old_slots: for the path of every rewired leaf ``[..., n]`` int32, -1 where the block was regrown.
    """
    now = {leaf_path(key_path): leaf for key_path, leaf in jax.tree_util.tree_leaves_with_path(weights)}

    def start(key_path: Any, mean: jax.Array) -> jax.Array:
        path = leaf_path(key_path)
        if path not in old_slots:
            return mean
        return jnp.where((old_slots[path] < 0)[..., None, None], now[path].astype(mean.dtype), mean)

    return jax.tree_util.tree_map_with_path(start, average)


def _is_state(node: Any) -> bool:
    return isinstance(node, WeightAverageState)
