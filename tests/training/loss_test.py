import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.data import pipeline
from sparsejax.training import loss


def test_shift_right_puts_the_start_token_first_and_hides_padding():
    target = jnp.array([[5, 6, 7], [-1, -1, -1]])
    assert loss.shift_right(target, start_id=9).tolist() == [[9, 5, 6], [9, 0, 0]]


def test_padding_has_the_same_mark_in_data_and_loss():
    assert loss.IGNORED == pipeline.IGNORED


def test_worked_example():
    # Two tokens, vocabulary of 2. Logits (0, 0): both tokens cost log 2. Logits (log 3, 0): p = 3/4, 1/4.
    logits = jnp.log(jnp.array([[[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]]]))
    target = jnp.array([[0, 1, -1]])
    sums = loss.loss_sums(logits, target)
    np.testing.assert_allclose(sums.nll, np.log(2) + np.log(4), rtol=1e-6)
    np.testing.assert_allclose(sums.log_z2, np.log(2) ** 2 + np.log(4) ** 2, rtol=1e-6)
    assert sums.tokens == 2
    np.testing.assert_allclose(loss.objective(sums, 0.1), sums.nll + 0.1 * sums.log_z2, rtol=1e-6)


def test_loss_is_float32_from_bfloat16_logits():
    # 2^-9 is lost when bfloat16 logits near 1 are summed in bfloat16.
    logits = jnp.ones((1, 1, 4096), jnp.bfloat16)
    sums = loss.loss_sums(logits, jnp.zeros((1, 1), jnp.int32))
    assert sums.nll.dtype == jnp.float32
    np.testing.assert_allclose(sums.nll, np.log(4096), rtol=1e-6)


# Primes, so that the shape of logits is that of nothing else: 4 rows of 61 tokens, 37 words.
ROWS, LENGTH, WIDTH, VOCAB = 4, 61, 8, 37


@functools.cache
def head_inputs():
    """Hidden states, kernel and targets; the values are exact in bfloat16."""
    draw = np.random.default_rng(0)
    hidden, kernel = (
        draw.normal(size=shape).astype(jnp.bfloat16).astype(np.float32)
        for shape in ((ROWS, LENGTH, WIDTH), (WIDTH, VOCAB))
    )
    target = draw.integers(0, VOCAB, (ROWS, LENGTH), np.int32)
    target[1, 40:], target[3] = -1, -1
    return hidden, kernel, target


def summed(hidden, kernel, target, chunk_tokens, dtype="float32"):
    """The objective with z-loss, and the sums."""

    def logits(part):
        return jnp.matmul(part.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)

    sums = loss.head_loss_sums(logits, hidden, target, chunk_tokens=chunk_tokens)
    return loss.objective(sums, 0.1), sums


def gradients(chunk_tokens, dtype="float32"):
    gradient = jax.grad(summed, argnums=(0, 1), has_aux=True)
    return jax.jit(gradient, static_argnums=(3, 4))(*head_inputs(), chunk_tokens, dtype)


@pytest.mark.parametrize(
    ("chunk_tokens", "chunks"),
    [
        (0, 1),
        (4 * 61, 1),  # the whole batch fits
        (4 * 61 - 1, 2),  # 31 positions twice, one of them padding
        (70, 4),  # 17 positions would do, 16 are enough
        (4, 61),
        (1, 61),  # never less than one position of every row
    ],
)
def test_the_loss_in_chunks_is_the_loss(chunk_tokens, chunks):
    assert loss.chunk_count((ROWS, LENGTH), chunk_tokens) == chunks
    grads, sums = gradients(chunk_tokens)
    expected_grads, expected = gradients(0)
    assert sums.tokens == expected.tokens == 2 * 61 + 40
    np.testing.assert_allclose([sums.nll, sums.log_z2], [expected.nll, expected.log_z2], rtol=2e-6)
    for mine, other in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    assert np.all(grads[0][3] == 0)  # a row of padding


def test_a_kernel_cast_inside_gets_its_gradient_summed_in_float32():
    # Summed in bfloat16, 61 chunks would round 61 times: the whole batch at once does it once, and no worse is allowed.
    exact, whole, chunked = (gradients(*how)[0][1] for how in ((0, "float32"), (0, "bfloat16"), (4, "bfloat16")))
    assert chunked.dtype == jnp.float32
    assert jnp.abs(chunked - exact).max() < 1.1 * jnp.abs(whole - exact).max()


def test_no_array_of_all_logits_is_left_and_memory_falls():
    def program(chunk_tokens):
        gradient = jax.value_and_grad(summed, argnums=(0, 1), has_aux=True)
        compiled = jax.jit(gradient, static_argnums=3).lower(*head_inputs(), chunk_tokens).compile()
        shapes = re.findall(r"f32\[([\d,]+)\]", compiled.as_text())
        elements = {math.prod(map(int, shape.split(","))) for shape in shapes if str(VOCAB) in shape.split(",")}
        return max(elements), compiled.memory_analysis().temp_size_in_bytes

    largest, whole = program(0)
    assert largest == ROWS * LENGTH * VOCAB, "the search must find what it looks for"
    largest, chunked = program(16)
    assert largest == max(16 * VOCAB, WIDTH * VOCAB)
    assert chunked < whole - 4 * ROWS * LENGTH * VOCAB / 2
