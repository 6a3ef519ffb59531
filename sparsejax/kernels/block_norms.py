"""How much every block of a gradient weighs, without the gradient: what growth by gradient needs.

Axes: T tokens, K input width, N output width, R x C block rows and columns of bk x bn.

    score[r, c] = sum |G| over block (r, c) of G = X^T gY, active or not

Growth rules compare all places of a weight, so every block of ``G [K, N]`` has to be computed once; none of it has to
be kept. All tokens must be in the one call: absolute values of parts do not add up to those of the sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.topology.blocks import BlockGrid

# At most this part of the gradient exists at a time, where the columns divide so.
_PANELS = 8


def panel_norms(x_TK: jax.Array, gy_TN: jax.Array, grid: BlockGrid) -> jax.Array:
    """``[R, C]`` float32 in plain XLA: a loop over panels of block columns, one ``[K, N / panels]`` product at a time.

    Args:
      x_TK: the input of the weight.
      gy_TN: the gradient of its output, of x's dtype; products are summed in float32, or wider if x is.
      grid: the weight's grid; shares and balance do not matter.
    """
    (bk, bn), columns, wide = grid.block, grid.columns, jnp.promote_types(x_TK.dtype, jnp.float32)
    panels = next(n for n in range(min(_PANELS, columns), columns + 1) if columns % n == 0)

    def panel(start: jax.Array) -> jax.Array:
        gy_TP = lax.dynamic_slice_in_dim(gy_TN, start, columns // panels * bn, axis=1)
        gradient_KP = lax.dot_general(x_TK, gy_TP, (((0,), (0,)), ((), ())), preferred_element_type=wide)
        return jnp.sum(jnp.abs(gradient_KP).reshape(grid.rows, bk, -1, bn), axis=(1, 3))

    starts = jnp.arange(panels, dtype=jnp.int32) * (columns // panels * bn)
    return lax.map(panel, starts).transpose(1, 0, 2).reshape(grid.rows, columns).astype(jnp.float32)
