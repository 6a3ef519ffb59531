"""Tokens with the cache are those without: alone and in a batch, greedy and drawn, within and past the length."""

import numpy as np
import pytest

from sparsejax.inference.continuation import Continuation
from sparsejax.inference.engine import bucket
from sparsejax.inference.sampling import GREEDY, Sampling
from tests.inference.tiny_engine import START, continued, tiny

PROMPTS = ([], [3, 1, 4], [15, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9])
DRAWN = Sampling(temperature=0.9, top_k=12, top_p=0.8)


@pytest.fixture(scope="module")
def decoder():
    return tiny()


def tokens_of(engine, prompts, sampling, seeds, new_tokens=6, length=16):
    rows = Continuation(
        engine,
        prompts,
        start_id=START,
        length=length,
        new_tokens=new_tokens,
        seeds=seeds,
        sampling=sampling,
    )
    return np.stack([rows.step() for _ in range(new_tokens)], axis=1)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_with_the_cache_as_without(decoder, sampling):
    # Two prompts outgrow their contexts, and at different times; of the longest only a part is read at all.
    found = tokens_of(decoder.engine(), PROMPTS, sampling, [5, 6, 7], new_tokens=16)
    for row, prompt in enumerate(PROMPTS):
        expected = continued(decoder, prompt, length=16, new_tokens=16, seed=5 + row, sampling=sampling)
        assert found[row].tolist() == expected
    assert len({token for row in found.tolist() for token in row}) > 3


def test_a_batch_is_each_of_its_rows_alone(decoder):
    engine = decoder.engine()
    together = tokens_of(engine, PROMPTS, DRAWN, [5, 6, 7])
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(tokens_of(engine, [prompt], DRAWN, [5 + row])[0], together[row])


@pytest.mark.slow
def test_devices_share_the_rows(decoder):
    prompts = [*PROMPTS, [1]]
    one, two = (tokens_of(decoder.engine(n), prompts, DRAWN, [5, 6, 7, 8], new_tokens=12) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="3 rows: must be a multiple of the 2 devices"):
        tokens_of(decoder.engine(2), PROMPTS, DRAWN, [5, 6, 7])


def test_a_finished_row_moves_no_other(decoder):
    engine = decoder.engine()
    rows = Continuation(engine, PROMPTS, start_id=START, length=16, new_tokens=20, seeds=[5, 6, 7], sampling=GREEDY)
    rows.finish(2)
    found = np.stack([rows.step() for _ in range(20)], axis=1)
    np.testing.assert_array_equal(found[:2], tokens_of(engine, PROMPTS, GREEDY, [5, 6, 7], new_tokens=20)[:2])
    with pytest.raises(ValueError, match="all 20 tokens were given"):
        rows.step()


def test_lengths_share_programs():
    assert [bucket(n, 512) for n in (1, 16, 17, 32, 33, 257, 512)] == [16, 16, 32, 32, 64, 512, 512]
    assert bucket(40, 48) == 48 and bucket(5, 10) == 10
