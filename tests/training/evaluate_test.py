import math

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.training.evaluate import Evaluation, bits_per_byte, evaluate, unigram_loss
from sparsejax.training.loss import LossSums


def counting_step(params, topology, target):
    """A model whose every token costs 2 nats."""
    tokens = jnp.sum(target >= 0).astype(jnp.float32)
    return LossSums(nll=2 * tokens, log_z2=tokens, tokens=tokens)


def test_mean_over_tokens_not_over_batches():
    batches = [np.zeros((2, 4), np.int32), np.array([[0, -1, -1, -1], [-1] * 4], np.int32)]
    found = evaluate(counting_step, {}, {}, batches, text_bytes=36.0, stop=lambda: False)
    assert found == Evaluation(loss=2.0, tokens=9, bits_per_byte=2.0 / (math.log(2) * 4.0), bytes_per_token=4.0)
    assert found.perplexity == pytest.approx(math.exp(2))


def test_a_request_to_stop_ends_it_without_a_number():
    assert evaluate(counting_step, {}, {}, [np.zeros((1, 2), np.int32)], 4.0, stop=lambda: True) is None


def test_one_bit_per_byte():
    assert bits_per_byte(math.log(2) * 3, bytes_per_token=3.0) == pytest.approx(1.0)


def test_unigram_by_hand():
    # Training counts (3, 1, 0) plus one each: p = 4/7, 2/7, 1/7. Validation is one token of each kind.
    train, validation = np.array([0, 0, 1, 0], np.uint16), np.array([0, 1, 2], np.uint16)
    expected = -(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3
    assert unigram_loss(train, validation, vocab_size=3) == pytest.approx(expected)
