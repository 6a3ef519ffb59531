"""Pseudo-gradients: what is sent of an array, how it is written, and that nothing is lost on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim import pseudo_gradient
from sparsejax.optim.pseudo_gradient import dequantise, feed_back, largest, mean_of, message

# One program each instead of one an operation.
compress = jax.jit(pseudo_gradient.compress, static_argnums=0)
spread = jax.jit(pseudo_gradient.spread, static_argnums=0)
quantise = jax.jit(pseudo_gradient.quantise)
pack = jax.jit(pseudo_gradient.pack, static_argnums=1)
unpack = jax.jit(pseudo_gradient.unpack, static_argnums=(1, 2))


def draw(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def test_worked_example() -> None:
    """Two chunks of four entries, of which two each are sent; the second chunk has one entry to send.

    entries      -1   4   0  -2  |   0   0  -3   0
    sent              4      -2  |          -3
    bits          0   1   0   1  |   0   0   1   0
    magnitudes   mean 3: below it 2, above it 4  |  mean 3: up to it 3, above it nothing
    codes             10     01  |          01       (bit 0: negative, bit 1: above the mean)
    """
    entries = jnp.array([[-1.0, 4.0, 0.0, -2.0], [0.0, 0.0, -3.0, 0.0]])
    form = message(8, chunk=4, top=0.5, bits=2)
    assert (form.chunks, form.length, form.kept, form.mapped) == (2, 4, 2, True)

    position_Ck, value_Ck = largest(entries, form.kept)
    np.testing.assert_array_equal(position_Ck[0], [1, 3])
    np.testing.assert_array_equal(value_Ck, [[4.0, -2.0], [-3.0, 0.0]])
    code_Ck, level_C2 = quantise(value_Ck)
    np.testing.assert_array_equal(level_C2, [[2.0, 4.0], [3.0, 0.0]])
    np.testing.assert_array_equal(code_Ck[0], [0b10, 0b01])

    words = compress(form, entries)
    # A bit for each of eight entries, then four codes: 32 numbers fill a group. Then four magnitudes.
    assert words.shape == (form.words,) == (1 + 2 + 4,)
    assert int(words[0]) == 0b0100_1010
    assert int(words[1]) & 0b11_1111 == 0b01_01_10
    np.testing.assert_array_equal(spread(form, words), [0.0, 4.0, 0.0, -2.0, 0.0, 0.0, -3.0, 0.0])


@pytest.mark.parametrize("bits", [2, 32])
def test_few_entries_are_named_by_their_positions(bits: int) -> None:
    """Two of 256 in each of two chunks; the second has one entry to send and says it twice."""
    entries = jnp.zeros((2, 256)).at[0, jnp.array([7, 9, 255])].set(jnp.array([1.0, 3.0, -2.0])).at[1, 4].set(-5.0)
    form = message(512, chunk=256, top=2 / 256, bits=bits)
    assert (form.kept, form.position_bits, form.mapped, form.place_words) == (2, 8, False, 8)
    words = compress(form, entries)
    assert words.shape == (form.words,)
    assert int(words[0]) == 0x04_04_FF_09
    np.testing.assert_array_equal(spread(form, words), entries.at[0, 7].set(0.0).reshape(-1))


def test_error_feedback_of_the_example() -> None:
    """What was not sent is sent next, when it has grown: -1 fades to -0.5 and meets -2.5."""
    form = message(4, chunk=4, top=0.25, bits=32)
    error = feed_back(jnp.zeros(4), jnp.array([4.0, -1.0, 2.0, 0.0]), beta=0.5)
    error -= spread(form, compress(form, error))
    np.testing.assert_array_equal(error, [0.0, -1.0, 2.0, 0.0])
    error = feed_back(error, jnp.array([0.0, -2.5, 0.0, 0.0]), beta=0.5)
    np.testing.assert_array_equal(spread(form, compress(form, error)), [0.0, -3.0, 0.0, 0.0])


@pytest.mark.parametrize("bits", [2, 32])
@pytest.mark.parametrize(("size", "top"), [(64, 0.125), (33, 1.0), (5, 0.01), (1000, 0.01)])
def test_counts_are_exact_and_signs_right(size: int, top: float, bits: int) -> None:
    form = message(size, chunk=32 if size < 1000 else 500, top=top, bits=bits)
    assert form.mapped == (size < 1000)
    entries = draw(size)
    sent = np.asarray(spread(form, compress(form, jnp.asarray(entries))))
    padded = np.pad(entries, (0, form.chunks * form.length - size)).reshape(form.chunks, -1)
    for chunk, mine in zip(padded, np.pad(sent, (0, padded.size - size)).reshape(padded.shape), strict=True):
        expected = set(np.argsort(-np.abs(chunk))[: form.kept]) & set(np.flatnonzero(chunk))
        assert set(np.flatnonzero(mine)) == expected
        np.testing.assert_array_equal(np.sign(mine[list(expected)]), np.sign(chunk[list(expected)]))
        if bits == 32:
            np.testing.assert_array_equal(mine[list(expected)], chunk[list(expected)])
        else:
            assert len(np.unique(np.abs(mine[list(expected)]))) <= 2


def test_chunks_are_as_equal_as_they_can_be() -> None:
    form = message(4097, chunk=4096, top=0.03125, bits=2)
    assert (form.chunks, form.length, form.kept) == (2, 2049, 64)
    assert message(16_384, chunk=4096, top=0.03125, bits=2).kept == 128


def test_magnitudes_keep_their_sum() -> None:
    values = jnp.asarray(draw(64).reshape(4, 16))
    code_Ck, level_C2 = quantise(values)
    sent_Ck = dequantise(code_Ck, level_C2)
    np.testing.assert_allclose(jnp.abs(sent_Ck).sum(axis=1), jnp.abs(values).sum(axis=1), rtol=1e-6)
    assert (level_C2[:, 1] > level_C2[:, 0]).all()
    # No two other magnitudes, split at the mean, are nearer.
    assert float(jnp.sum((sent_Ck - values) ** 2)) < float(jnp.sum((dequantise(code_Ck, 1.1 * level_C2) - values) ** 2))


def test_equal_magnitudes_are_sent_as_they_are() -> None:
    form = message(8, chunk=8, top=0.5, bits=2)
    entries = jnp.array([0.0, -0.1, 0.1, 0.0, 0.1, -0.1, 0.0, 0.0])
    np.testing.assert_array_equal(spread(form, compress(form, entries)), entries)


def test_nothing_is_sent_of_zeros() -> None:
    """Free slots never move: their gradient is 0, and so is what is sent of them."""
    form = message(40, chunk=16, top=0.5, bits=2)
    np.testing.assert_array_equal(spread(form, compress(form, jnp.zeros(40))), np.zeros(40))


@pytest.mark.parametrize("width", [2, 12, 31])
@pytest.mark.parametrize("count", [1, 77])
def test_packed_numbers_come_back(count: int, width: int) -> None:
    numbers = np.random.default_rng(width).integers(0, 2**width, count, dtype=np.uint32)
    numbers[-1] = 2**width - 1
    words = pack(jnp.asarray(numbers), width)
    assert words.shape == (-(-count // 32) * width,)
    np.testing.assert_array_equal(unpack(words, count, width), numbers)


def test_first_number_lies_in_the_lowest_bits() -> None:
    np.testing.assert_array_equal(pack(jnp.array([1, 2, 3], jnp.uint32), 12), [0x0300_2001] + [0] * 11)


def test_bytes_of_the_paper() -> None:
    """3.125 % of a chunk of 4096: 128 positions of 12 bits, 128 codes of 2 and two magnitudes; 1.4 % of float32."""
    form = message(4096, chunk=4096, top=0.03125, bits=2)
    assert 4 * form.words == 128 * 12 // 8 + 128 * 2 // 8 + 8 == 232
    assert 4 * form.words / (4 * 4096) < 0.0142
    # A quarter of them: 4096 bits, 1024 codes of 2 and two magnitudes.
    assert 4 * message(4096, chunk=4096, top=0.25, bits=2).words == 512 + 256 + 8


def test_whole_arrays_need_no_positions() -> None:
    form = message(7, chunk=7, top=1.0, bits=32)
    entries = draw(7)
    assert form.words == 7
    np.testing.assert_array_equal(spread(form, compress(form, jnp.asarray(entries))), entries)


def test_mean_over_senders_or_over_all() -> None:
    """Of two arrays, the first of which two replicas send in part: 4 and 2 by one, 6 by the other at the same place."""
    forms = [message(4, chunk=4, top=0.5, bits=32), message(2, chunk=2, top=1.0, bits=32)]
    one = [jnp.array([4.0, 1.0, 0.0, -2.0]), jnp.array([1.0, 3.0])]
    other = [jnp.array([6.0, 0.0, 0.0, 0.0]), jnp.array([3.0, 5.0])]
    received = jnp.stack([jnp.concatenate([*map(compress, forms, each)]) for each in (one, other)])
    for by_senders, first in ((True, [5.0, 0.0, 0.0, -2.0]), (False, [5.0, 0.0, 0.0, -1.0])):
        means = mean_of(forms, received, [by_senders, False])
        np.testing.assert_array_equal(means[0], first)
        np.testing.assert_array_equal(means[1], [2.0, 4.0])
