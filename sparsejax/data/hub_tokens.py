"""Begin and end of text as the files beside a tokenizer of the Hugging Face Hub name them.

In this order: ``tokenizer_config.json`` and ``special_tokens_map.json`` (by name), ``generation_config.json`` and
``config.json`` (by id), and where none of them names an end, names in common use. A token may be null, absent, a string
or an object with ``content``; ids may be several, of which the first counts. A name that the vocabulary lacks is looked
up in ``added_tokens_decoder`` and ``added_tokens.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from sparsejax.files.json_records import read_record
from sparsejax.files.text import one_line

BEGIN_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>")
END_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>")

_CONFIG = "tokenizer_config.json"
_NAMING = (_CONFIG, "special_tokens_map.json")
_COUNTING = ("generation_config.json", "config.json")
_ADDED = "added_tokens.json"
_FIX = "correct it, or take it out of the folder"

_Record = TypeVar("_Record")
_Which = Literal["bos_token", "eos_token"]


class _Token(msgspec.Struct):
    content: str


class _Names(msgspec.Struct):
    bos_token: str | _Token | None = None
    eos_token: str | _Token | None = None
    added_tokens_decoder: dict[str, _Token] = {}


class _Ids(msgspec.Struct):
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None


@dataclass(frozen=True)
class SpecialTokens:
    """Begin and end of text, as the files name them.

    Attributes:
      start_id: begin of text, or ``end_id`` if nothing names one.
      end_id: end of text.
      added: name and id of those two that the vocabulary lacks.
    """

    start_id: int
    end_id: int
    added: dict[str, int]


def special_tokens(directory: Path, vocabulary: Mapping[str, int]) -> SpecialTokens:
    """Begin and end of text of a tokenizer in ``directory`` that has this vocabulary.

    Raises:
      ValueError: nothing names an end, or what does names one that is not there.
      ConfigError: a file beside the tokenizer is damaged.
    """
    found = _Search(directory, vocabulary)
    end, by = found.named("eos_token")
    if end is None:
        end = _usual(END_NAMES, vocabulary)
        if found.unknown or end is None:
            problem = found.unknown or f"none of {', '.join(END_NAMES)}, and no file beside it names another"
            raise ValueError(f"no end-of-text token: {problem}")
    # A folder whose tokenizer_config.json names the end names the begin there too, or has none.
    begin, _ = found.named("bos_token", last=_CONFIG if by == _CONFIG else "")
    if begin is None and not by:
        begin = _usual(BEGIN_NAMES, vocabulary)
    return SpecialTokens(end if begin is None else begin, end, found.added)


def _usual(names: tuple[str, ...], vocabulary: Mapping[str, int]) -> int | None:
    return next((vocabulary[name] for name in names if name in vocabulary), None)


class _Search:
    """Looks tokens up in one folder after the other file; each file is read when it is asked for."""

    def __init__(self, directory: Path, vocabulary: Mapping[str, int]) -> None:
        self._directory, self._vocabulary = directory, vocabulary
        self._ids = set(vocabulary.values())
        self.added: dict[str, int] = {}
        self.unknown = ""

    def named(self, which: _Which, last: str = "") -> tuple[int | None, str]:
        """The id of a token and the file that names it, none later than ``last``; None if no file names one."""
        readers: list[tuple[str, Callable[[str, _Which], int | None]]] = [
            *((file, self._by_name) for file in _NAMING),
            *((file, self._by_id) for file in _COUNTING),
        ]
        for file, reader in readers:
            found = reader(file, which)
            if found is not None:
                return found, file
            if file == last:
                break
        return None, ""

    def _by_name(self, file: str, which: _Which) -> int | None:
        token = getattr(self._read(file, _Names), which)
        name = token.content if isinstance(token, _Token) else token
        if not name:
            return None
        if name in self._vocabulary:
            return self._vocabulary[name]
        added = self._added_tokens()
        if name in added:
            self.added[name] = added[name]
            return added[name]
        self._not_there(which, f"{file} names {one_line(repr(name))}")
        return None

    def _by_id(self, file: str, which: _Which) -> int | None:
        found = getattr(self._read(file, _Ids), f"{which}_id")
        token = next(iter(found), None) if isinstance(found, list) else found
        if token is None or token in self._ids:
            return token
        self._not_there(which, f"{file} has {which}_id {token}")
        return None

    def _not_there(self, which: _Which, said: str) -> None:
        if which == "eos_token" and not self.unknown:
            self.unknown = f"{said}, which its vocabulary does not have"

    def _added_tokens(self) -> dict[str, int]:
        decoder = self._read(_CONFIG, _Names).added_tokens_decoder
        found = {token.content: int(number) for number, token in decoder.items() if number.isdecimal()}
        return found | self._read(_ADDED, dict[str, int], dict)

    def _read(self, file: str, kind: type[_Record], empty: Callable[[], _Record] | None = None) -> _Record:
        path = self._directory / file
        if not path.is_file():
            return (empty or kind)()
        return read_record(path, kind, fix=_FIX)
