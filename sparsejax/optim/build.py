"""The one place that puts the optimizer together, for runs and for plain Optax code.

Example: one weight of 4 blocks of 2 x 2 at density 0.25, and a dense bias. A rewiring then moves block 0 to slot 1
and block 1 to slot 2, drops block 2 and puts a new block into slot 0.

    >>> import jax, jax.numpy as jnp, optax
    >>> from sparsejax.optim.build import sparse_adam
    >>> from sparsejax.optim.sparse_adam import remap, sparse_adam_state
    >>> params = {"values": jnp.ones((4, 2, 2)), "bias": jnp.zeros(3)}
    >>> def loss(params):
    ...     return jnp.sum(params["values"] ** 2) + jnp.sum((params["bias"] - 1) ** 2)
    >>> optimizer = sparse_adam(1e-3, densities={"values": 0.25, "bias": 1.0})
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> print(f'{params["values"][0, 0, 0]:.4f} {params["bias"][0]:.4f}')  # 1 - 1e-3 * 0.25^-0.5 and 0 + 1e-3
    0.9980 0.0010
    >>> state = remap(state, {"values": jnp.array([-1, 0, 1, 3])})
    >>> print(sparse_adam_state(state).ages["values"])
    [0 1 1 1]
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import optax

from sparsejax.config import OptimConfig
from sparsejax.optim.arguments import check_hyperparameters, is_set
from sparsejax.optim.clip import clip_by_global_norm
from sparsejax.optim.forms import Form
from sparsejax.optim.galore import scale_by_stacked_galore
from sparsejax.optim.paths import settings_at
from sparsejax.optim.sparse_adam import MomentDtype, scale_by_sparse_adam
from sparsejax.optim.weight_average import average_weights


def build_optimizer(
    config: OptimConfig,
    densities: Any,
    decay_mask: Any,
    vocabulary_mask: Any,
    rounding_seed: int,
    without_blocks: Collection[str] = (),
    pulls: Sequence[optax.GradientTransformationExtraArgs] = (),
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a run: the chain of ``sparse_adam`` with every setting taken from the configuration.

    Its updates are still to be multiplied by minus the learning rate. The train step does that from a table, an
    argument of the program, so that runs with other rates share one compilation; it hands the factor to ``update`` as
    ``step_size``, for the average of the weights (``weight_average.py``). With the form ``"galore"``, plain Adam works
    on projected gradients (``galore.py``).

    Args:
      config: resolved settings.
      densities: realised densities with the structure of the parameters, see ``scale_by_sparse_adam``.
      decay_mask: bools with the structure of the parameters; False (norms, embeddings) exempts from weight decay.
      vocabulary_mask: bools with the structure of the parameters; True for embedding and head, whose updates are
        multiplied by ``vocabulary_lr_ratio``, weight decay included: a rate of their own.
      rounding_seed: seed of the stochastic rounding of bfloat16 moments.
      without_blocks: paths of leaves with a density below 1 and no blocks, see ``scale_by_sparse_adam``.
      pulls: what is added to the clipped gradient, before Adam.
    """
    direction = scale_by_sparse_adam(
        densities,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        # Legal names since the config was resolved.
        form="naive" if config.form == "galore" else config.form,  # type: ignore[arg-type]
        density_exponent=config.density_exponent,
        ramp=config.ramp,
        moment_dtype=config.moment_dtype,  # type: ignore[arg-type]
        rounding_seed=rounding_seed,
        without_blocks=without_blocks,
    )
    if config.form == "galore":
        direction = scale_by_stacked_galore(direction, config.galore_rank, config.galore_every)
    chain = _chain(direction, config.clip, pulls, config.weight_decay, decay_mask, coupled=config.form == "smet_code")
    stages = [chain]
    if config.vocabulary_lr_ratio != 1.0:
        stages.append(optax.masked(optax.scale(config.vocabulary_lr_ratio), vocabulary_mask))
    if config.ema_decay > 0:
        stages.append(average_weights(config.ema_decay))
    return chain if len(stages) == 1 else optax.with_extra_args_support(optax.chain(*stages))


def sparse_adam(
    learning_rate: optax.ScalarOrSchedule,
    densities: Any,
    *,
    weight_decay: float = 0.0,
    decay_mask: Any = None,
    clip: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    form: Form = "smet",
    density_exponent: float = 0.5,
    ramp: int = 100,
    moment_dtype: MomentDtype = "float32",
    rounding_seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Adam for block-sparse training, with the defaults of SMET (arXiv 2606.00888); see the example above.

    The chain: clip the global norm, ``scale_by_sparse_adam``, add ``weight_decay * w``, multiply by minus the
    learning rate. The decay is decoupled: neither the density scale nor the ramp touches it. In the form
    ``"smet_code"`` it is coupled, added to the clipped gradient, as in the published code.

    Densities and the mask are found by path (``paths.py``), so it works inside the wrappers of Optax and Flax.

    Args:
      learning_rate: a float or an optax schedule.
      densities: floats by path; below 1 a leaf is ``values [..., n, bk, bn]``, see ``scale_by_sparse_adam``.
      weight_decay: 0 leaves it out; above 0 ``update`` needs the parameters.
      decay_mask: bools by path, True where weight decay applies, or a function that makes them; None decays all.
      clip: largest global norm of the gradients; 0 leaves it out.
      b1: decay of the first moment; this and the following go to ``scale_by_sparse_adam``.
      b2: of the second.
      eps: added to the root of the second moment.
      form: variant of the update, see ``forms.py``.
      density_exponent: p in the learning-rate scale d^-p.
      ramp: updates over which a regrown block warms up.
      moment_dtype: storage of the moments.
      rounding_seed: of bfloat16 moments.

    Returns an optax transformation whose state ``remap`` carries through a rewiring.

    Raises:
      ValueError: a number that a config would refuse; else as ``scale_by_sparse_adam``.
    """
    rate = {} if callable(learning_rate) else {"learning_rate": learning_rate}
    check_hyperparameters(**rate, weight_decay=weight_decay, clip=clip)
    adam = scale_by_sparse_adam(
        densities,
        b1=b1,
        b2=b2,
        eps=eps,
        form=form,
        density_exponent=density_exponent,
        ramp=ramp,
        moment_dtype=moment_dtype,
        rounding_seed=rounding_seed,
    )
    mask = None if decay_mask is None else functools.partial(_mask_at, decay_mask)
    direction = _chain(adam, clip, (), weight_decay, mask, coupled=form == "smet_code")
    return optax.with_extra_args_support(optax.chain(direction, optax.scale_by_learning_rate(learning_rate)))


def _chain(
    adam: optax.GradientTransformationExtraArgs,
    clip: float,
    pulls: Sequence[optax.GradientTransformationExtraArgs],
    weight_decay: float,
    decay_mask: Any,
    *,
    coupled: bool,
) -> optax.GradientTransformationExtraArgs:
    """Clip, pulls, Adam and weight decay, the decay before Adam if it is coupled."""
    decay = [optax.add_decayed_weights(weight_decay, mask=decay_mask)] if is_set(weight_decay) else []
    stages = [clip_by_global_norm(clip)] if is_set(clip) else []
    stages += [*pulls, *decay, adam] if coupled else [*pulls, adam, *decay]
    return optax.with_extra_args_support(optax.chain(*stages))


def _mask_at(mask: Any, tree: Any) -> Any:
    """The mask with the structure of ``tree``, its values found by path."""
    found = [bool(value) for _, _, value in settings_at(tree, mask, "decay_mask")]
    return jax.tree.unflatten(jax.tree.structure(tree), found)
