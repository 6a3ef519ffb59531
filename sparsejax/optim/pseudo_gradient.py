"""Pseudo-gradients small enough for a slow link: error feedback, the largest entries of every chunk, two bits each.

SparseLoCo (arXiv 2508.15706): a replica trains alone for a number of steps, and what it has to tell the others is how
far it went, ``delta = theta - theta_r``. It sends only the largest entries of it, and what it did not send is added to
what it sends next:

    e <- beta e + delta        q = Q(Top(e))        e <- e - q        theta <- theta - alpha mean_r q_r

``Top`` keeps the same number of entries of every chunk, so all sizes are static. Which ones is said by their positions,
or, where more than about one in twelve is sent, by a bit for every entry, which is shorter then. ``Q`` with 2 bits is
ours: of every chunk a sign and one of two magnitudes, the means of the smaller and of the larger half of what is sent,
split at their mean. The largest entries of a chunk are never near 0, so no level is spent there; both magnitudes are
means of what they stand for, so a chunk's magnitudes keep their sum.

Axes: C chunks, N entries of a chunk, k entries sent of a chunk, W words of 32 bits. Packing works on G groups of N = 32
numbers in w words each, of which n reach into one word.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORD = 32


@dataclasses.dataclass(frozen=True)
class Message:
    """How the entries of one array are sent; all of it is static.

    Attributes:
      size: entries of the array.
      chunks: parts they are cut into, as equal as they can be; the last is filled up with zeros.
      length: entries of a part.
      kept: entries sent of each part, the largest.
      bits: 32, float32 as they are; 2, quantised.
    """

    size: int
    chunks: int
    length: int
    kept: int
    bits: int

    @property
    def whole(self) -> bool:
        """Whether every entry is sent as it is, which needs no positions."""
        return self.kept == self.length and self.bits == _WORD

    @property
    def position_bits(self) -> int:
        """Bits that name one of the entries of a chunk."""
        return max(1, (self.length - 1).bit_length())

    @property
    def sent(self) -> int:
        """Entries in the message."""
        return self.chunks * self.kept

    @property
    def mapped(self) -> bool:
        """Whether a bit for every entry of a chunk is shorter than the positions of those that are sent."""
        return _packed_words(self.chunks * self.length, 1) < _packed_words(self.sent, self.position_bits)

    @property
    def place_words(self) -> int:
        """Words that say which entries are sent."""
        if self.whole:
            return 0
        if self.mapped:
            return _packed_words(self.chunks * self.length, 1)
        return _packed_words(self.sent, self.position_bits)

    @property
    def words(self) -> int:
        """Words of 32 bits in the message."""
        values = self.sent if self.bits == _WORD else _packed_words(self.sent, 2) + 2 * self.chunks
        return self.place_words + values


def message(size: int, chunk: int, top: float, bits: int) -> Message:
    """The message for an array of ``size`` entries.

    Args:
      size: entries of the array.
      chunk: most entries of a part.
      top: share of the entries that is sent, in (0, 1]; at least one of every part.
      bits: of a sent entry, 2 or 32.
    """
    chunks = max(1, math.ceil(size / chunk))
    length = math.ceil(size / chunks)
    return Message(size, chunks, length, max(1, round(top * length)), bits)


def feed_back(error: jax.Array, delta: jax.Array, beta: float) -> jax.Array:
    """What a replica would like to send, ``beta e + delta``, in the shape of both."""
    return beta * error + delta


def compress(form: Message, entries: jax.Array) -> jax.Array:
    """The message of an array, ``[W]`` uint32; ``spread`` gives back what the others will read in it.

    Args:
      form: how it is sent.
      entries: float32, any shape with ``form.size`` entries.
    """
    entries_CN = jnp.pad(entries.reshape(-1), (0, form.chunks * form.length - form.size)).reshape(form.chunks, -1)
    if form.whole:
        return _bits_of(entries_CN)
    position_Ck, value_Ck = largest(entries_CN, form.kept)
    empty_Ck = value_Ck == 0.0
    if form.mapped:
        # In the order of the bits, entries of 0 behind all others: they have no bit.
        order_Ck = jnp.argsort(jnp.where(empty_Ck, form.length, position_Ck), axis=1)
        value_Ck = jnp.take_along_axis(value_Ck, order_Ck, axis=1)
        places = pack(_put(form, position_Ck, (~empty_Ck).astype(jnp.uint32)).reshape(-1), 1)
    else:
        # A chunk with fewer entries than are sent says its largest one several times.
        position_Ck = jnp.where(empty_Ck, position_Ck[:, :1], position_Ck)
        places = pack(position_Ck.astype(jnp.uint32).reshape(-1), form.position_bits)

    def said(number_Ck: jax.Array) -> jax.Array:
        return number_Ck if form.mapped else jnp.where(empty_Ck, number_Ck[:, :1], number_Ck)

    if form.bits == _WORD:
        return jnp.concatenate([places, _bits_of(said(value_Ck))])
    code_Ck, level_C2 = quantise(value_Ck)
    return jnp.concatenate([places, pack(said(code_Ck).reshape(-1), 2), _bits_of(level_C2)])


def spread(form: Message, words: jax.Array) -> jax.Array:
    """The array that a message stands for, ``[size]`` float32, zero where nothing was sent."""
    places, rest = jnp.split(words, [form.place_words])
    if form.bits == _WORD:
        value_Ck = _floats_of(rest).reshape(form.chunks, form.kept)
    else:
        codes, levels = jnp.split(rest, [_packed_words(form.sent, 2)])
        code_Ck = unpack(codes, form.sent, 2).reshape(form.chunks, form.kept)
        value_Ck = dequantise(code_Ck, _floats_of(levels).reshape(form.chunks, 2))
    if form.whole:
        entries_CN = value_Ck
    elif form.mapped:
        bit_CN = unpack(places, form.chunks * form.length, 1).reshape(form.chunks, form.length).astype(jnp.int32)
        number_CN = jnp.maximum(jnp.cumsum(bit_CN, axis=1) - 1, 0)
        entries_CN = jnp.where(bit_CN == 1, jnp.take_along_axis(value_Ck, number_CN, axis=1), 0.0)
    else:
        position_Ck = unpack(places, form.sent, form.position_bits).astype(jnp.int32)
        entries_CN = _put(form, position_Ck.reshape(form.chunks, form.kept), value_Ck)
    return entries_CN.reshape(-1)[: form.size]


def mean_of(forms: Sequence[Message], received_RW: jax.Array, by_senders: Sequence[bool]) -> list[jax.Array]:
    """Mean of what the messages of R replicas stand for, one array of ``[size]`` float32 a form.

    The order of the sum is the same everywhere, so that all replicas find the same bits.

    Args:
      forms: of the arrays, one after the other in every message.
      received_RW: the messages, uint32.
      by_senders: of which arrays the mean of an entry is over those that sent it, instead of over all replicas.
    """
    ends = np.cumsum([form.words for form in forms])[:-1].tolist()
    replicas = received_RW.shape[0]

    def add(sums: list[tuple[jax.Array, jax.Array]], words_W: jax.Array) -> tuple[Any, None]:
        entries = [spread(form, part) for form, part in zip(forms, jnp.split(words_W, ends), strict=True)]
        return [(total + q, sent + (q != 0.0)) for (total, sent), q in zip(sums, entries, strict=True)], None

    nothing = [(jnp.zeros(form.size, jnp.float32), jnp.zeros(form.size, jnp.float32)) for form in forms]
    sums, _ = jax.lax.scan(add, nothing, received_RW)
    return [
        total / (jnp.maximum(sent, 1.0) if alone else replicas)
        for (total, sent), alone in zip(sums, by_senders, strict=True)
    ]


def largest(entries_CN: jax.Array, kept: int) -> tuple[jax.Array, jax.Array]:
    """Positions ``[C, k]`` int32 and values of the entries of every chunk that are largest in magnitude, sorted."""
    _, position_Ck = jax.lax.top_k(jnp.abs(entries_CN), kept)
    return position_Ck, jnp.take_along_axis(entries_CN, position_Ck, axis=1)


def quantise(value_Ck: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two bits an entry: codes ``[C, k]`` uint32, and the two magnitudes of every chunk, ``[C, 2]`` float32.

    Bit 0 is the sign, bit 1 says that the magnitude is above the mean of the chunk's. Entries of 0 count for nothing:
    they have no code, and must not be sent.
    """
    size_Ck = jnp.abs(value_Ck)
    there_Ck = size_Ck > 0.0
    above_Ck = size_Ck > _mean(size_Ck, there_Ck)[:, None]
    low_C = _mean(size_Ck, there_Ck & ~above_Ck)
    level_C2 = jnp.stack([low_C, _mean(size_Ck, above_Ck)], axis=1)
    return (value_Ck < 0.0).astype(jnp.uint32) | above_Ck.astype(jnp.uint32) << 1, level_C2


def dequantise(code_Ck: jax.Array, level_C2: jax.Array) -> jax.Array:
    """Values ``[C, k]`` float32 of the codes that ``quantise`` gives."""
    size_Ck = jnp.where(code_Ck >> 1 == 1, level_C2[:, 1:], level_C2[:, :1])
    return jnp.where(code_Ck & 1 == 1, -size_Ck, size_Ck)


def pack(numbers: jax.Array, width: int) -> jax.Array:
    """Numbers ``[m]`` uint32 below ``2 ** width`` without gaps: 32 of them, the last ones zeros, in ``width`` words."""
    group_GN = jnp.pad(numbers, (0, -numbers.shape[0] % _WORD)).reshape(-1, _WORD)
    # The numbers that reach into a word, and how far to the left each lies in it; negative is to the right.
    first_w = np.arange(width) * _WORD // width
    place_wn = first_w[:, None] + np.arange(_WORD // width + 2)
    left_wn = place_wn * width - np.arange(width)[:, None] * _WORD
    reaches_wn = (place_wn < _WORD) & (left_wn < _WORD)
    near_Gwn = group_GN[:, np.minimum(place_wn, _WORD - 1)]
    up, down = (np.clip(shift, 0, _WORD - 1).astype(np.uint32) for shift in (left_wn, -left_wn))
    bits_Gwn = jnp.where(reaches_wn, jnp.where(left_wn >= 0, near_Gwn << up, near_Gwn >> down), 0)
    return jnp.sum(bits_Gwn, axis=2, dtype=jnp.uint32).reshape(-1)


def unpack(words: jax.Array, count: int, width: int) -> jax.Array:
    """The first ``count`` numbers, uint32, of what ``pack`` made."""
    group_Gw = words.reshape(-1, width)
    word_N, shift_N = np.divmod(np.arange(_WORD) * width, _WORD)
    low_GN = group_Gw[:, word_N] >> shift_N.astype(np.uint32)
    # What is beyond the end of a word begins the next; shifted in two steps, for no shift is as long as a word.
    rest_GN = group_Gw[:, np.minimum(word_N + 1, width - 1)] << (_WORD - 1 - shift_N).astype(np.uint32) << 1
    number_GN = jnp.where(shift_N + width > _WORD, low_GN | rest_GN, low_GN)
    return (number_GN & ((1 << width) - 1)).reshape(-1)[:count]


def _put(form: Message, position_Ck: jax.Array, number_Ck: jax.Array) -> jax.Array:
    """Numbers at their positions in chunks of zeros, ``[C, N]``."""
    zeros_CN = jnp.zeros((form.chunks, form.length), number_Ck.dtype)
    return jax.vmap(lambda zeros, position, number: zeros.at[position].set(number))(zeros_CN, position_Ck, number_Ck)


def _packed_words(count: int, width: int) -> int:
    return math.ceil(count / _WORD) * width


def _mean(size_Ck: jax.Array, which_Ck: jax.Array) -> jax.Array:
    """Mean over those of a chunk's entries that are meant, 0 without any."""
    count_C = jnp.maximum(jnp.sum(which_Ck, axis=1), 1)
    return jnp.sum(jnp.where(which_Ck, size_Ck, 0.0), axis=1) / count_C


def _bits_of(floats: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(floats.astype(jnp.float32), jnp.uint32).reshape(-1)


def _floats_of(words: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(words, jnp.float32)
