"""A reader of serialised ``tf.train.Example`` messages: just enough of the protocol buffer wire format.

Layout (tensorflow/core/example/{example,feature}.proto), field numbers in front:

    Example   1 features: Features
    Features  1 feature: map entry, repeated     entry    1 key: string, 2 value: Feature
    Feature   1 bytes_list: BytesList            (2 float_list, 3 int64_list: numbers are not read)
    BytesList 1 value: bytes, repeated

Each field is a varint ``number << 3 | wire type`` and its value (protobuf.dev, Encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsejax.data.foreign_text import FormatError, NotText

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 64
_CUT_SHORT = "a tf.train.Example is cut short"
_NUMBERS = {2: NotText("float numbers"), 3: NotText("integer numbers")}


def features(example: bytes) -> dict[str, bytes | NotText | None]:
    """Every feature by its name: its bytes, or ``None`` without a value; raises ``FormatError`` for broken messages."""
    found = {}
    for group in _submessages(example, 1):
        for entry in _submessages(group, 1):
            name = b"".join(_submessages(entry, 1)).decode("utf-8", "replace")
            found[name] = _value(list(_submessages(entry, 2)))
    return found


def _value(feature: list[bytes]) -> bytes | NotText | None:
    for number, kind in _NUMBERS.items():
        if any(True for part in feature for _ in _submessages(part, number)):
            return kind
    values = [value for part in feature for listed in _submessages(part, 1) for value in _submessages(listed, 1)]
    if len(values) > 1:
        return NotText(f"a list of {len(values)} values")
    return values[0] if values else None


def _submessages(message: bytes, wanted: int) -> Iterator[bytes]:
    """The length-delimited fields of one number."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _LENGTH:
            length, position = _varint(message, position)
            end = position + length
            if end > len(message):
                raise FormatError(_CUT_SHORT)
            if number == wanted:
                yield message[position:end]
            position = end
        elif wire_type == _VARINT:
            _, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise FormatError(f"wire type {wire_type} does not occur in a tf.train.Example")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, least significant first, and the position after it."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if position == len(message):
            raise FormatError(_CUT_SHORT)
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise FormatError("a number in a tf.train.Example has no end")
