"""Progressive gradient flow: how an N:M pattern comes during training (Bambhaniya et al., arXiv 2402.04744).

The state of the flow is two scalars a layer, in the topology tree beside the indices of other storages: ``used``, the
N of the pattern in force, and ``faded``, the factor of the weights outside it. Both are functions of the step alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.config import RunConfig
from sparsejax.models.functional import Tree

# exp(-5) = 0.7 % of an unused weight are left where the exponential fade ends.
_FADE_RATE = 5.0


def with_flow(topology: Tree, run: RunConfig, step: jax.Array, steps: int) -> Tree:
    """The topology tree with the N:M pattern that is in force at ``step``; other storages come back as they are.

    To be called wherever the step advances, and once at the start. Compiles once: ``step`` may be traced.

    Args:
      topology: the tree of a model, see ``functional``.
      run: uses topology.nm, flow, flow_start and flow_end.
      step: ``[]`` int32, optimizer steps done.
      steps: optimizer steps of the whole run.
    """
    if run.topology.storage != "dense_master" or run.topology.flow == "none" or not topology:
        return topology
    (used, group), flow = run.topology.nm, run.topology.flow
    start, end = round(run.topology.flow_start * steps), round(run.topology.flow_end * steps)
    state = (
        {"used": stage(used, group, step, start, end), "faded": jnp.zeros((), jnp.float32)}
        if flow == "structure"
        else {"used": jnp.full((), used, jnp.int32), "faded": fade(flow, step, start, end)}
    )

    def advance(path: Any, old: jax.Array) -> jax.Array:
        return jnp.broadcast_to(state[path[-1].key], old.shape) if path[-1].key in state else old

    return jax.tree_util.tree_map_with_path(advance, topology)


def fade(flow: str, step: jax.Array, start: int, end: int) -> jax.Array:
    """Factor of the weights outside the pattern, ``[]`` float32: 1 before ``start``, 0 from ``end`` on.

    With ``x = (step - start) / (end - start)``: ``mask_linear`` is ``1 - x``, ``mask_exp`` is ``exp(-5 x)``, which
    jumps to 0 at the end.

    Raises:
      ValueError: an unknown flow.
    """
    x = jnp.clip((step - start) / max(end - start, 1), 0.0, 1.0).astype(jnp.float32)
    if flow not in ("mask_linear", "mask_exp"):
        raise ValueError(f"flow={flow!r}: must be mask_linear or mask_exp")
    left = 1.0 - x if flow == "mask_linear" else jnp.exp(-_FADE_RATE * x)
    return jnp.where(step >= end, 0.0, left)


def stage(used: int, group: int, step: jax.Array, start: int, end: int) -> jax.Array:
    """N of the pattern in force under ``structure``, ``[]`` int32.

    ``group`` (dense) before ``start``; then M-1, M/2, M/4 and so on, as far as they are above ``used``, for equal
    parts of the way to ``end``; ``used`` from ``end`` on, or from ``start`` on if nothing lies between.
    """
    between = [n for n in (group - 1, *(group >> shift for shift in range(1, group.bit_length()))) if n > used]
    between = list(dict.fromkeys(between))
    parts = max(len(between), 1)
    begins = [start + (end - start) * part // parts for part in range(len(between))]
    begins.append(end if between else start)
    reached = jnp.sum(step >= np.asarray(begins))
    return jnp.asarray([group, *between, used], jnp.int32)[reached]
