"""A reader of serialised ``tf.train.Example`` messages: just enough of the protocol buffer wire format.

Layout (tensorflow/core/example/{example,feature}.proto), field numbers in front:

    Example   1 features: Features
    Features  1 feature: map entry, repeated     entry    1 key: string, 2 value: Feature
    Feature   1 bytes_list: BytesList            (2 float_list, 3 int64_list: not read)
    BytesList 1 value: bytes, repeated

Each field is a varint ``number << 3 | wire type`` and its value (protobuf.dev, Encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def bytes_features(example: bytes) -> dict[str, bytes]:
    """The first value of every bytes feature, by name; raises ``IndexError`` if the message is cut short."""
    found = {}
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            name = b"".join(_submessages(entry, 1)).decode("utf-8")
            for feature in _submessages(entry, 2):
                for bytes_list in _submessages(feature, 1):
                    found[name] = next(_submessages(bytes_list, 1), b"")
    return found


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
                raise IndexError("a tf.train.Example is cut short")
            if number == wanted:
                yield message[position:end]
            position = end
        elif wire_type == _VARINT:
            _, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {wire_type} does not occur in a tf.train.Example")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, least significant first, and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
