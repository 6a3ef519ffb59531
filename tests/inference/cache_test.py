"""What the cache gives is what the decoder gives without one, for every storage and for rows of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.inference.cache import extend, prefill
from sparsejax.models.functional import merge
from tests.inference.tiny_engine import tiny

TOKENS = np.random.default_rng(0).integers(0, 32, (3, 12))
LENGTHS = np.array([1, 4, 7])


def cached_logits(engine, chunks):
    """Logits at the last token of every prompt and at all that follow; tokens come in chunks of these lengths."""

    def run(params, topology):
        model = merge(engine.graphdef(3, 7), params, topology)
        # Behind a prompt stands what must not be seen.
        prompts = jnp.where(jnp.arange(7) < LENGTHS[:, None], TOKENS[:, :7], 30)
        hidden, cache = prefill(model, prompts, jnp.asarray(LENGTHS), capacity=12)
        found, done = [model.logits(hidden)[:, None]], 0
        for length in chunks:
            following = jnp.stack([row[n + done : n + done + length] for row, n in zip(TOKENS, LENGTHS, strict=True)])
            hidden, cache = extend(model, cache, following)
            found, done = [*found, model.logits(hidden)], done + length
        return jnp.concatenate(found, axis=1), cache.lengths_B

    return jax.jit(run)(*engine.trees)


@pytest.mark.parametrize(
    ("storage", "implementation", "leaf"),
    [
        ("blocks", "batched", "values"),
        # Never faster than dense, so made dense once.
        pytest.param("unstructured", "auto", "kernel", marks=pytest.mark.slow),
        ("n:m flow", "auto", "kernel"),
        pytest.param("monarch", "auto", "first", marks=pytest.mark.slow),
    ],
)
def test_logits_with_the_cache_are_those_without(storage, implementation, leaf):
    decoder = tiny(storage)
    engine = decoder.engine(implementation=implementation)
    assert leaf in engine.trees[0]["layers"]["mlp"]["up"]
    found, lengths = cached_logits(engine, chunks=(1, 3, 1))
    whole = decoder.logits(TOKENS)
    np.testing.assert_array_equal(lengths, LENGTHS + 5)
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row], whole[row, n - 1 : n + 5], rtol=1e-5, atol=2e-5)
    assert np.std(whole) > 0.1


def test_bfloat16_keeps_two_bytes_a_weight_and_the_logits_bit_for_bit():
    decoder = tiny("n:m", compute_dtype="bfloat16")
    engine = decoder.engine()
    dtypes = {leaf.dtype for path, leaf in jax.tree.leaves_with_path(engine.trees[0]) if path[-1].key != "scale"}
    assert dtypes == {jnp.dtype("bfloat16")}
    whole = jax.jit(merge(engine.graphdef(3, 12), *engine.trees))(TOKENS)
    np.testing.assert_array_equal(whole, decoder.logits(TOKENS))


def test_what_does_not_fit_is_refused_or_dropped():
    engine = tiny().engine()
    model = merge(engine.graphdef(1, 4), *engine.trees)
    with pytest.raises(ValueError, match="capacity=3: must be at least the 4 tokens"):
        prefill(model, jnp.zeros((1, 4), jnp.int32), jnp.array([4]), capacity=3)

    def before_and_after():
        _, cache = prefill(model, jnp.zeros((1, 4), jnp.int32), jnp.array([4]), capacity=4)
        return cache.keys, extend(model, cache, jnp.ones((1, 1), jnp.int32))[1].keys

    np.testing.assert_array_equal(*jax.jit(before_and_after)())
