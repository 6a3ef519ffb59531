"""Text that others wrote: bytes into ``str``, text into lines, any value into one line of a message."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

from sparsejax.config import ConfigError

# Longest first: the mark of UTF-32 (little endian) begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decode_text(data: bytes, name: object) -> str:
    """Decode UTF-8 with or without a byte order mark; the mark is no text.

    Args:
      data: the whole content of a file, or of a field of one.
      name: the file, for the error.

    Raises:
      ConfigError: ``data`` is not UTF-8; the line says where.
    """
    for mark, encoding in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise ConfigError(f"{one_line(name)}: is {encoding}; save it as UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{one_line(name)}: is not UTF-8: byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8"
        ) from None


def lines_of(text: str) -> Iterator[str]:
    r"""Yield the lines of a text, which end at ``\n`` or ``\r\n`` only; an empty last one is left out.

    ``str.splitlines`` also cuts at form feeds and at U+2028, which are text.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for line in lines:
        yield line.removesuffix("\r")


def one_line(value: Any, limit: int = 200) -> str:
    """Show any value in one printable line of at most ``limit`` characters: line breaks and the like are escaped."""
    text = str(value)
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return _escaped(text)


def printable(message: object, limit: int = 4000) -> str:
    """Show a whole message in one printable line: its start says what is wrong and its end what to do.

    Args:
      message: an error, or its text.
      limit: characters; of a longer message the middle is left out.
    """
    text = str(message)
    if len(text) > limit:
        text = f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
    return _escaped(text)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
