import jax.numpy as jnp
import numpy as np

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
