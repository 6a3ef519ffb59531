"""Ids without a token: found in any tokenizer, and never drawn by any way of drawing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.inference.continuation import Continuation
from sparsejax.inference.sampling import GREEDY, Sampling, draw_rows
from sparsejax.inference.scoring import Scored, score
from sparsejax.inference.vocabulary import absent_ids, without_absent
from tests.inference.tiny_engine import START, VOCAB, tiny


class Gapped(ByteTokenizer):
    """Bytes, of which some stand for nothing."""

    def gaps(self) -> list[int]:
        return [0, 7, 8, 9, 256]


def test_absent_ids_are_gaps_and_padding():
    assert absent_ids(ByteTokenizer(), 257) == ()
    assert absent_ids(ByteTokenizer(), 320) == ((257, 320),)
    assert absent_ids(Gapped(), 300) == ((0, 1), (7, 10), (256, 300))
    assert absent_ids(Gapped(), 257) == ((0, 1), (7, 10), (256, 257))


@pytest.mark.parametrize("sampling", [GREEDY, *(Sampling(1.0, *how) for how in ((), (4,), (0, 0.5), (64, 0.999)))])
def test_what_is_absent_is_never_drawn_though_it_is_the_likeliest(sampling):
    absent = ((0, 3), (40, 64))
    logits_BV = jnp.zeros((256, 64)).at[:, :3].set(50.0).at[:, 40:].set(50.0)
    ids = np.asarray(draw_rows(without_absent(logits_BV, absent), sampling, jnp.arange(256, dtype=jnp.uint32), 0))
    assert ids.min() >= 3 and ids.max() < 40


def test_prompts_steps_and_scores_know_what_is_absent():
    engine = tiny("dense").engine(absent=((0, START),))
    rows = Continuation(
        engine, [[1, 2]], start_id=START, length=8, new_tokens=3, seeds=[0], sampling=Sampling(1.0, 5, 0.9)
    )
    assert [int(rows.step()[0]) for _ in range(3)] == [START] * 3
    (only,), (other,) = (
        score(engine, [Scored([START, 1], [token])], length=8, batch_size=1) for token in (VOCAB - 1, 3)
    )
    assert only.greedy and not other.greedy
    # The likelihood is over all rows, as in other programs.
    assert only.log_likelihood < -0.1


def test_without_gaps_the_program_is_the_same():
    logits = jnp.ones((2, 3))
    assert without_absent(logits, ()) is logits
    assert jax.eval_shape(lambda x: without_absent(x, ((1, 2),)), logits).shape == (2, 3)
