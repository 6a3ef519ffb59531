"""Training beside a teacher: the dense model a run started from, frozen.

With ``p`` the teacher's distribution at one token, ``q`` the student's, ``z`` logits, ``y`` the target, ``T`` the
temperature (``init.distill_temperature``) and ``a`` the weight (``init.distill_weight``), a token costs::

    (1 - a) (-log q(y))  +  a T^2 sum_v p_T(v) (log p_T(v) - log q_T(v))        p_T = softmax(z / T)

which is Hinton et al. (arXiv 1503.02531, section 2), with the divergence for their cross entropy: it differs by the
teacher's entropy, a constant, and is 0 where the student is as the teacher. ``T^2`` keeps its gradient as large at any
temperature. With a feature weight ``b`` there is SquareHead besides (Kurtic et al., arXiv 2310.06927, section 3)::

    b sum_l  |s_l - t_l|^2 / |t_l|^2

of the residual stream behind layer ``l``, ``s`` the student's and ``t`` the teacher's. The paper divides means over a
batch; here the quotient is taken token by token, so that it is a sum over tokens like the rest of the loss and does not
depend on how a batch is cut into microbatches or over devices.

The teacher is an argument of the train step, not part of the state: checkpoints do not hold it. Its matrices are stored
in the compute dtype, in which they are multiplied anyway.

Axes: B rows, T tokens, D hidden, V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from sparsejax.models import functional
from sparsejax.models.accounting import executed_flops
from sparsejax.models.layers import rope_frequencies, rotation_of
from sparsejax.models.llama import Llama
from sparsejax.training.loss import IGNORED, LossSums, loss_sums, objective, shift_right, sums_by_chunks
from sparsejax.training.recipe import Recipe
from sparsejax.training.sharding import specs
from sparsejax.training.state import Tree

_TINY = 1e-20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DistillSums(LossSums):
    """Sums over the counted tokens of a batch of a run with a teacher, float32 scalars.

    Attributes:
      divergence: of the student from the teacher in nats, both at the temperature, without the factor ``T^2``.
      feature_error: of SquareHead, summed over the layers; 0 without a feature weight.
    """

    divergence: jax.Array
    feature_error: jax.Array


def stored_dtype(recipe: Recipe, path: Any) -> DTypeLike:
    """Dtype in which a teacher's parameter is stored; norm scales are multiplied in float32."""
    return jnp.float32 if path[-1].key == "scale" else recipe.run.model.compute_dtype


def abstract_teacher(recipe: Recipe) -> Tree:
    """Shapes and dtypes of the teacher's parameters: what the train step takes behind the learning rates."""
    params = recipe.dense.abstract.params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, stored_dtype(recipe, path)), params
    )


def teacher_specs(recipe: Recipe) -> Any:
    """``PartitionSpec`` of every parameter of the teacher: it is cut as the dense twin of the run would be."""
    dense = recipe.dense
    return specs(dense, dense.abstract.params, "params/")


def teacher_flops(recipe: Recipe) -> int:
    """FLOPs per token of the teacher's forward pass; 0 for a run without one."""
    if not recipe.run.init.distills:
        return 0
    dense = recipe.dense
    counted = [weight.counted for weight in dense.weights.values()]
    return executed_flops(dense.shape, counted, dense.run.data.sequence_length, {}, "none").forward


def make_distilled_objective(recipe: Recipe) -> Callable[[Tree, Tree, jax.Array, Tree], tuple[jax.Array, DistillSums]]:
    """The summed objective of a run with a teacher, and its parts.

    Params, topology, targets ``[B, T]`` and the teacher's params in; on a mesh everything is the part of one device.
    """
    init, teacher_graph = recipe.run.init, recipe.dense.graphdef

    def distilled(
        params: Tree, topology: Tree, target_BT: jax.Array, teacher_params: Tree
    ) -> tuple[jax.Array, DistillSums]:
        student = functional.merge(recipe.graphdef, params, topology)
        teacher = functional.merge(teacher_graph, jax.lax.stop_gradient(teacher_params), {})
        sums = _sums(recipe, student, teacher, target_BT)
        share, temperature = init.distill_weight, init.distill_temperature
        text = objective(dataclasses.replace(sums, nll=(1.0 - share) * sums.nll), recipe.run.train.z_loss)
        from_teacher = share * temperature**2 * sums.divergence + init.feature_weight * sums.feature_error
        return text + from_teacher, sums

    return distilled


def _sums(recipe: Recipe, student: Llama, teacher: Llama, target_BT: jax.Array) -> DistillSums:
    parallel, init = recipe.parallel, recipe.run.init
    counted_BT = parallel.own_tokens(target_BT)
    student_BTD, teacher_BTD, feature_error = both_hidden_states(
        student, teacher, shift_right(target_BT, recipe.start_id), counted_BT != IGNORED, bool(init.feature_weight)
    )
    if not parallel.sequence:
        student_BTD, teacher_BTD = parallel.own_tokens(student_BTD), parallel.own_tokens(teacher_BTD)
    logits, teacher_logits = (partial(model.logits_by, model.head_kernel) for model in (student, teacher))

    def sums_of(student_BTD: jax.Array, teacher_BTD: jax.Array, target_BT: jax.Array) -> tuple[LossSums, jax.Array]:
        logits_BTV = logits(student_BTD)
        divergence_BT = divergence(teacher_logits(teacher_BTD), logits_BTV, init.distill_temperature)
        return loss_sums(logits_BTV, target_BT), jnp.sum(jnp.where(target_BT != IGNORED, divergence_BT, 0.0))

    text, divergence_sum = sums_by_chunks(
        sums_of, (student_BTD, teacher_BTD), counted_BT, chunk_tokens=recipe.run.train.loss_chunk
    )
    return DistillSums(text.nll, text.log_z2, text.tokens, divergence_sum, feature_error)


def divergence(teacher_BTV: jax.Array, student_BTV: jax.Array, temperature: float) -> jax.Array:
    """``KL(p || q) = sum_v p (log p - log q)`` in nats, ``[B, T]`` float32, of two logits over the temperature."""
    log_p_BTV, log_q_BTV = (
        jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1) for logits in (teacher_BTV, student_BTV)
    )
    # Where the teacher's probability underflows, 0 times a difference that is finite.
    return jnp.sum(jnp.exp(log_p_BTV) * (log_p_BTV - log_q_BTV), axis=-1)


def both_hidden_states(
    student: Llama, teacher: Llama, tokens_BT: jax.Array, counted_BT: jax.Array, compares: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both models' normalised outputs of the last layer, and what their layers differ by.

    The models go through their layers side by side, so no layer's output is kept for the comparison.

    Args:
      student: the one that learns.
      teacher: of as many layers and the same width.
      tokens_BT: inputs.
      counted_BT: bools, the device's own tokens, those of them that count.
      compares: whether to compare layers.

    Returns:
      Two arrays ``[B, T, D]`` in the compute dtype, as ``Llama.hidden_states`` gives them, and SquareHead's sum over
      layers and counted tokens, a float32 scalar, 0 unless ``compares``.
    """
    parallel = student.parallel
    own_BT = parallel.own_tokens(tokens_BT) if parallel.sequence else tokens_BT
    rotation = rotation_of(jnp.arange(tokens_BT.shape[1]), rope_frequencies(student.model))
    graphs, states = [], []
    for model in (student, teacher):
        graph, *of_layers = nnx.split(model.layers, nnx.Param, ...)
        graphs.append(graph)
        states.append(of_layers)

    def error(student_BTD: jax.Array, teacher_BTD: jax.Array) -> jax.Array:
        mine, theirs = (
            (x_BTD if parallel.sequence else parallel.own_tokens(x_BTD)).astype(jnp.float32)
            for x_BTD in (student_BTD, teacher_BTD)
        )
        quotient_BT = jnp.sum(jnp.square(mine - theirs), -1) / jnp.maximum(jnp.sum(jnp.square(theirs), -1), _TINY)
        return jnp.sum(jnp.where(counted_BT, quotient_BT, 0.0))

    def body(carry: tuple[jax.Array, ...], states: Any) -> tuple[tuple[jax.Array, ...], None]:
        x_BTD, teacher_BTD, total = carry
        x_BTD = nnx.merge(graphs[0], *states[0])(x_BTD, rotation)
        teacher_BTD = nnx.merge(graphs[1], *states[1])(teacher_BTD, rotation)
        return (x_BTD, teacher_BTD, total + error(x_BTD, teacher_BTD) if compares else total), None

    carry = student.embedded(own_BT), teacher.embedded(own_BT), jnp.zeros((), jnp.float32)
    (x_BTD, teacher_BTD, total), _ = jax.lax.scan(student.rematerialised(body), carry, states)
    return student.norm(x_BTD), teacher.norm(teacher_BTD), total
