"""The entries with the lowest scores, as a mask, without sorting them.

Only a mask is wanted, so only the score of the last entry chosen is looked for: its bits are found from the highest
down, each by counting the entries below a guess. That is one pass over the scores a bit, where a sort moves all of
them; with blocks of one element there are millions.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

_WORD = 32
_BIT = np.arange(_WORD, dtype=np.uint32)


# Compiled once a shape: called outside a program, the loop would be compiled at every call.
@functools.partial(jax.jit, inline=True)
def lowest(score: jax.Array, allowed: jax.Array, count: jax.Array | int) -> jax.Array:
    """The ``count`` allowed entries with the lowest scores, as a mask; ties go to the lower index.

    Args:
      score: ``[m]``, integer or float; NaN counts as highest, and -0 as 0.
      allowed: ``[m]`` bool; entries that may be chosen.
      count: how many, an integer or a traced scalar; if fewer are allowed, all of them are chosen.
    """
    keys = order_keys(score)
    # An entry with the highest key is below no guess, so those that are not allowed take it.
    counted = jnp.where(allowed, keys, ~jnp.zeros_like(keys))
    wanted = jnp.asarray(count, jnp.int32)
    bits = jnp.iinfo(keys.dtype).bits

    def chosen(last: jax.Array) -> jax.Array:
        below, equal = counted < last, allowed & (counted == last)
        left = wanted - jnp.sum(below, dtype=jnp.int32)
        return below | (equal & (counts_up_to(equal) <= left))

    def next_bit(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        last, mask = carry
        guess = last | jax.lax.shift_left(jnp.ones_like(last), (bits - 1 - number).astype(last.dtype))
        below = jnp.sum(counted < guess, dtype=jnp.int32) < wanted
        # The mask is made inside the loop, after the last bit. Where a compiler makes a drawn score twice, the two may
        # differ in their last bit; what the loop reads and what it returns exist once.
        mask = jax.lax.cond(number == bits, chosen, lambda _: mask, last)
        return jnp.where(below & (number < bits), guess, last), mask

    start = jnp.zeros((), keys.dtype), jnp.zeros(keys.shape, bool)
    return jax.lax.fori_loop(0, bits + 1, next_bit, start)[1]


def counts_up_to(mask: jax.Array) -> jax.Array:
    """How many entries are set up to each one, itself included, ``[m]`` int32: the cumulative sum of a mask.

    A cumulative sum goes over its array once for every doubling of the distance. Here 32 entries become one word,
    whose set bits are counted, and only the counts of words are summed up.
    """
    word_W, before_W = _words(mask)
    up_to = jax.lax.population_count(word_W[:, None] & (~jnp.uint32(0) >> (_WORD - 1 - _BIT)))
    return (before_W[:, None] + up_to.astype(jnp.int32)).reshape(-1)[: mask.size]


def places_of(mask: jax.Array, capacity: int) -> jax.Array:
    """Ascending places of the entries of ``mask [m]`` that are set, ``[capacity]`` int32, filled up with m.

    ``jnp.nonzero`` of a fixed size, found from the other side: every slot looks up its word and the bit in it.
    """
    word_W, before_W = _words(mask)
    set_W = jax.lax.population_count(word_W).astype(jnp.int32)
    slot_c = jnp.arange(capacity, dtype=jnp.int32)
    first_W = jnp.where(set_W > 0, before_W, capacity)
    number_W = jnp.arange(word_W.size, dtype=jnp.int32)
    number_c = jax.lax.cummax(jnp.zeros_like(slot_c).at[first_W].set(number_W, mode="drop"))
    # The bit that ``left_c`` set bits of the word come before: by halves, from the lowest bits up.
    word_c, left_c, bit_c = word_W[number_c], slot_c - before_W[number_c], jnp.zeros_like(slot_c)
    for half in (16, 8, 4, 2, 1):
        low_c = jax.lax.population_count(word_c & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
        beyond_c = left_c >= low_c
        left_c = jnp.where(beyond_c, left_c - low_c, left_c)
        word_c = jnp.where(beyond_c, word_c >> half, word_c)
        bit_c = jnp.where(beyond_c, bit_c + half, bit_c)
    total = before_W[-1] + set_W[-1]
    return jnp.where(slot_c < total, number_c * _WORD + bit_c, mask.size)


def _words(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """32 entries in a word, ``[W]`` uint32, and how many are set before each word, ``[W]`` int32."""
    words = -(-mask.size // _WORD)
    by_word = jnp.pad(mask, (0, words * _WORD - mask.size)).reshape(words, _WORD)
    word_W = jnp.sum(by_word.astype(jnp.uint32) << _BIT, axis=1, dtype=jnp.uint32)
    set_W = jax.lax.population_count(word_W).astype(jnp.int32)
    return word_W, jnp.cumsum(set_W) - set_W


def order_keys(score: jax.Array) -> jax.Array:
    """Unsigned integers that order as the scores do, of the same shape: equal for equal scores, highest for NaN."""
    if jnp.issubdtype(score.dtype, jnp.floating):
        wide = score.astype(jnp.promote_types(score.dtype, jnp.float32))
        whole = jnp.where(wide == 0, 0, jnp.where(jnp.isnan(wide), jnp.nan, wide))
        signed = jax.lax.bitcast_convert_type(whole, jnp.int64 if wide.dtype.itemsize == 8 else jnp.int32)
        # Negative floats order against their bits.
        lowest_bit = jnp.iinfo(signed.dtype).min
        signed = jnp.where(signed < 0, lowest_bit ^ ~signed, signed)
    elif jnp.issubdtype(score.dtype, jnp.unsignedinteger):
        return score.astype(jnp.promote_types(score.dtype, jnp.uint32))
    else:
        signed = score.astype(jnp.promote_types(score.dtype, jnp.int32))
    unsigned = jax.lax.bitcast_convert_type(signed, jnp.uint64 if signed.dtype.itemsize == 8 else jnp.uint32)
    return unsigned ^ (jnp.ones_like(unsigned) << (jnp.iinfo(unsigned.dtype).bits - 1))
