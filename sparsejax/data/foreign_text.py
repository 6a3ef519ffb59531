"""The one rule for text in files of all formats: which values are text, how long it may be, how a file is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sparsejax.files.text import one_line

# Of a line, of a record and of a text: what is read at once.
MAX_BYTES = 64 * 2**20
_MARKS = {b"\xff\xfe": "UTF-16 or UTF-32", b"\xfe\xff": "UTF-16"}
_SHOWN_NAMES = 10


class FormatError(ValueError):
    """A file is not what its format says; the text is the reason, one line that does not name the file."""


class MissingField(FormatError):
    """A record has no field of the name that is asked for.

    Attributes:
      place: the record, such as ``line 2``.
      present: the names of the fields it has.
    """

    def __init__(self, place: str, present: Iterable[object]) -> None:
        """``present`` is any collection of names; errors show the first ones."""
        names = list(present)
        shown = ", ".join(one_line(name) for name in names[:_SHOWN_NAMES])
        self.place = place
        self.present = f"{shown}, ..." if len(names) > _SHOWN_NAMES else shown
        super().__init__(f"{place} has no field of that name; it has: {self.present}")


class NotText(NamedTuple):
    """Stands for a value that is no text; ``kind`` says what it is, such as ``a number``."""

    kind: str


def text_of(value: object, place: str) -> str:
    """The text in a field.

    Args:
      value: ``None`` and empty values are no text and give the empty string; bytes must be UTF-8.
      place: the record, such as ``line 2``, for the error.

    Raises:
      FormatError: the value is not text, is not UTF-8 or is larger than ``MAX_BYTES``.
    """
    if value is None:
        return ""
    if not isinstance(value, str | bytes):
        kind = value.kind if isinstance(value, NotText) else f"a value of type {type(value).__name__}"
        raise FormatError(f"{place} holds {kind} in that field, not text")
    check_size(len(value), place)
    if isinstance(value, bytes):
        return decoded(value, place)
    # JSON can spell half of a surrogate pair, which no UTF-8 text contains.
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def decoded(data: bytes, place: str) -> str:
    """Decode UTF-8; raises ``FormatError`` that says where it is something else."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, place) from None


def not_utf8(error: UnicodeDecodeError, place: str) -> FormatError:
    """The error for bytes that are not UTF-8."""
    data: bytes = error.object
    if data[:2] in _MARKS:
        return FormatError(f"{place} is {_MARKS[data[:2]]}; save the file as UTF-8")
    return FormatError(f"{place} is not UTF-8: byte 0x{data[error.start]:02x}; convert the file to UTF-8")


def check_size(size: int, place: str) -> None:
    """Raises ``FormatError`` if a line, a record or a text of ``size`` bytes is larger than what is read at once."""
    if size > MAX_BYTES:
        raise FormatError(f"{place} is longer than {MAX_BYTES:,} bytes; cut it into documents")
