"""Which attention runs where, and that every one that can run here computes the same function."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.config import CHOICES, ConfigError
from sparsejax.hardware.target import CPU, Target
from sparsejax.models.attention import IMPLEMENTATIONS, AttentionChoice, causal_attention, resolve

V5E, H200 = Target("tpu", "v5e"), Target("gpu", "h200")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def xla(q, k, v):
    return causal_attention(q, k, v, implementation="xla")


def splash(q, k, v):
    return causal_attention(q, k, v, implementation="splash")


def chosen(attention, target, head_dim=64, length=256, dtype="bfloat16"):
    return resolve(attention, target=target, head_dim=head_dim, length=length, dtype=dtype)


def test_attention_of_equal_keys_averages_the_past():
    # Equal keys weigh alike, so position t returns the mean of values 0 to t.
    q, k = normal(0, 1, 4, 2, 8), jnp.ones((1, 4, 1, 8))
    v = jnp.arange(4.0).reshape(1, 4, 1, 1) * jnp.ones((1, 4, 1, 8))
    np.testing.assert_allclose(xla(q, k, v)[0, :, :, 0], [[0, 0], [0.5, 0.5], [1, 1], [1.5, 1.5]], atol=1e-6)


def test_grouped_heads_read_their_own_key_head():
    # Four query heads, two key heads: heads 0 and 1 read values of 1, heads 2 and 3 values of 2.
    q, k = normal(0, 1, 3, 4, 8), normal(1, 1, 3, 2, 8)
    v = jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1) * jnp.ones((1, 3, 2, 8))
    np.testing.assert_allclose(xla(q, k, v)[0, 0, :, 0], [1, 1, 2, 2], atol=1e-6)


def test_softmax_is_float32_for_bfloat16_inputs():
    q, k, v = (normal(seed, 1, 256, 1, 8).astype(jnp.bfloat16) for seed in range(3))
    narrow = xla(q, k, v)
    wide = xla(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=2e-2)
    exponentials = re.findall(r":(\w+)\[[\d,]*\] = exp", str(jax.make_jaxpr(xla)(q, k, v)))
    assert exponentials == ["f32"]


def test_splash_agrees_with_xla_in_value_and_gradients():
    """Rows folded into heads, two query heads on one key head, several tiles; the interpreter watches memory."""
    q, k, v, out_bar = (normal(seed, 2, 384, heads, 64) for seed, heads in enumerate((2, 1, 1, 2)))

    def value_and_gradients(attention):
        out, pull = jax.vjp(attention, q, k, v)
        return out, *pull(out_bar)

    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")):
        ours = jax.jit(value_and_gradients, static_argnums=0)(splash)
    theirs = jax.jit(value_and_gradients, static_argnums=0)(xla)
    for mine, other in zip(ours, theirs, strict=True):
        assert jnp.abs(mine - other).max() < 1e-5 * jnp.abs(other).max()


@pytest.mark.parametrize(
    ("target", "changes", "want"),
    [
        (CPU, {}, "xla"),
        (V5E, {}, "splash"),
        (V5E, {"dtype": "float32", "head_dim": 128}, "splash"),
        (V5E, {"length": 200}, "xla (not splash: data.sequence_length=200 is not a multiple of 128)"),
        (H200, {}, "cudnn"),
        (H200, {"length": 200}, "cudnn"),
        (H200, {"dtype": "float32"}, "xla (not cudnn: takes bfloat16, not model.compute_dtype=float32)"),
        (H200, {"head_dim": 36}, "xla (not cudnn: model.head_dim=36 is not a multiple of 8 up to 128)"),
        (H200, {"head_dim": 256}, "xla (not cudnn: model.head_dim=256 is not a multiple of 8 up to 128)"),
        (Target("gpu", None), {}, "xla (not cudnn: this gpu is not in hardware/chips.py)"),
    ],
)
def test_auto_takes_the_fused_kernel_of_the_platform_or_says_why_not(target, changes, want):
    assert str(chosen("auto", target, **changes)) == want


@pytest.mark.parametrize(
    ("attention", "target", "changes", "message"),
    [
        ("cudnn", CPU, {}, "model.attention=cudnn: is for gpu, and this run is on cpu; use auto or xla"),
        ("splash", H200, {}, "model.attention=splash: is for tpu, and this run is on gpu; use auto or xla"),
        ("splash", V5E, {"length": 96}, "model.attention=splash: data.sequence_length=96 is not a multiple of 128;"),
        (
            "cudnn",
            H200,
            {"dtype": "float32"},
            "model.attention=cudnn: takes bfloat16, not model.compute_dtype=float32;",
        ),
        ("flash", CPU, {}, "model.attention=flash: unknown; use one of auto, xla, splash, cudnn"),
    ],
)
def test_a_choice_that_cannot_run_is_refused_in_one_line(attention, target, changes, message):
    with pytest.raises(ConfigError) as caught:
        chosen(attention, target, **changes)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_names_are_the_legal_values_and_are_returned_as_they_are():
    assert CHOICES["model.attention"] == ("auto", *IMPLEMENTATIONS)
    assert chosen("xla", V5E) == AttentionChoice("xla")
    assert chosen("cudnn", Target("gpu", None)) == AttentionChoice("cudnn")


def test_a_call_that_cannot_run_is_a_value_error():
    q = normal(0, 1, 100, 1, 8)
    with pytest.raises(ValueError, match="100 tokens: must be a multiple of 128"):
        splash(q, q, q)
    with pytest.raises(ValueError, match="'auto': must be one of xla, splash, cudnn"):
        causal_attention(q, q, q, implementation="auto")
