import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.optim.galore import projections, scale_by_stacked_galore
from sparsejax.optim.sparse_adam import scale_by_sparse_adam, sparse_adam_state

PARAMS = {
    "norm": jnp.zeros((2, 4)),
    "down": jnp.zeros((2, 6, 4)),
    "up": jnp.zeros((2, 4, 6)),
    "head": jnp.zeros((4, 10)),
}


def optimizer(rank=2, every=2, moment_dtype="float32"):
    adam = scale_by_sparse_adam(jax.tree.map(lambda _: 1.0, PARAMS), form="naive", moment_dtype=moment_dtype)
    return scale_by_stacked_galore(adam, rank, every)


def gradients(seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), PARAMS)


def adam_of(history):
    """Adam's direction after the gradients in ``history``, in float64."""
    m = v = 0.0
    for t, g in enumerate(history, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return direction


@pytest.fixture(scope="module")
def trace():
    """Directions and states of three updates, with a new projection in the first and the third."""
    galore = optimizer()
    state, update, history = galore.init(PARAMS), jax.jit(galore.update), []
    for seed in range(3):
        updates, state = update(gradients(seed), state)
        history.append((updates, state))
    return history


def test_every_layer_is_projected_alone(trace):
    for name, long_first in (("down", True), ("up", False)):
        for layer in range(2):
            turned = [np.asarray(gradients(s)[name][layer], np.float64) for s in range(2)]
            turned = turned if long_first else [g.T for g in turned]
            left = np.linalg.svd(turned[0])[0][:, :2]
            for count in (1, 2):
                expected = 0.25 * left @ adam_of([left.T @ g for g in turned[:count]])
                found = trace[count - 1][0][name][layer]
                np.testing.assert_allclose(found if long_first else found.T, expected, rtol=1e-3, atol=1e-4)


def test_projections_are_renewed_when_due_and_orthonormal(trace):
    first, second, third = (projections(state)["down"] for _, state in trace)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(np.abs(second), np.abs(third), atol=1e-2)
    for layer in range(2):
        np.testing.assert_allclose(third[layer].T @ third[layer], np.eye(2), atol=1e-5)


def test_everything_else_is_plain_adam(trace):
    for name in ("norm", "head"):
        expected = adam_of([np.asarray(gradients(seed)[name], np.float64) for seed in range(3)])
        np.testing.assert_allclose(trace[2][0][name], expected, rtol=1e-4, atol=1e-5)


def test_state_shapes_are_those_of_the_rank(trace):
    _, state = trace[-1]
    adam = sparse_adam_state(state)
    for moments in (adam.mu, adam.nu):
        shapes = {name: leaf.shape for name, leaf in moments.items()}
        assert shapes == {"norm": (2, 4), "down": (2, 2, 4), "up": (2, 4, 2), "head": (4, 10)}
    # One for each projected leaf, along its longer axis.
    assert {path: leaf.shape for path, leaf in projections(state).items()} == {"down": (2, 6, 2), "up": (2, 6, 2)}
    assert adam.count.shape == () and int(adam.count) == 3 and adam.ages == {}
    jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) or pytest.fail(), state, optimizer().init(PARAMS)
    )


def test_the_decomposition_is_computed_only_when_due():
    galore = optimizer()
    program = jax.jit(galore.update).lower(PARAMS, galore.init(PARAMS)).as_text()
    # One branch a projected leaf, all under a condition: a mapped count would have turned them into selections.
    assert program.count("stablehlo.case") >= 2


def test_bfloat16_moments_and_plain_states():
    galore = optimizer(moment_dtype="bfloat16")
    _, state = jax.jit(galore.update)(gradients(0), galore.init(PARAMS))
    assert {leaf.dtype for leaf in jax.tree.leaves(sparse_adam_state(state).mu)} == {jnp.dtype(jnp.bfloat16)}
    assert projections(optax.adam(1e-3).init(PARAMS)) == {}
