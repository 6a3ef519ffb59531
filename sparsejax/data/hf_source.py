"""A data set of the Hugging Face ``datasets`` library (the extra ``hf``)."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests, file_stamp
from sparsejax.data.document import Document
from sparsejax.data.file_source import missing_field
from sparsejax.data.foreign_text import FormatError, MissingField, text_of
from sparsejax.data.hf_slices import Slice, parse_slices, without_rows
from sparsejax.data.paths import PathSetting
from sparsejax.data.whole_source import WholeSource
from sparsejax.files.text import one_line


@dataclass(frozen=True)
class _Piece:
    """Rows of a split, side by side.

    Attributes:
      split: the same for the same rows: the library's files of the split, or names where it has none.
      table: the ``datasets.Dataset`` of the whole split.
      rows: the chosen ones.
    """

    split: tuple[str, ...]
    table: Any
    rows: range

    @property
    def chosen(self) -> Any:
        """The table of the chosen rows."""
        return self.table if self.whole else self.table.select(self.rows)

    @property
    def whole(self) -> bool:
        """Whether all rows of the split are chosen."""
        return len(self.rows) == len(self.table)


class HfSource(WholeSource):
    """The rows of splits of a data set, in their order; a document's identity is its text."""

    name = "hf"

    def __init__(self, where: PathSetting, text_field: str, digests: FileDigests) -> None:
        """Loads the data set (downloading it if needed).

        Args:
          where: ``name``, ``name:configuration`` or a local directory (of data files, or saved by
            ``save_to_disk``), each with an optional ``@split``, which may be sliced (see ``hf_slices``); the split is
            ``train`` if none is named. Rows that several slices have are there once.
          text_field: the column that holds the text.
          digests: remembers the digest for as long as the library's cache files do not change.

        Raises:
          ConfigError: the library is missing, the data set cannot be loaded, or has no such split or column.
        """
        try:
            import datasets
        except ImportError as error:
            raise ConfigError(
                "data.source=hf: the package 'datasets' is not installed; run pip install 'sparsejax[hf]'"
            ) from error
        self._text_field = text_field
        self.where = where
        self._digests = digests
        self._pieces = _pieces(datasets, where)
        for piece in self._pieces:
            if text_field not in piece.table.column_names:
                absent = MissingField(where.value, piece.table.column_names)
                raise missing_field(text_field, absent.place, absent)

    def documents(self) -> Iterator[Document]:
        """One document per row that has text; raises ``ConfigError`` for a row that cannot be read."""
        try:
            for piece in self._pieces:
                table = piece.chosen.select_columns([self._text_field])
                for number, row in enumerate(table, start=piece.rows.start):
                    text = text_of(row[self._text_field], f"row {number}")
                    if text:
                        yield Document.of_text(text)
        # A string column of Arrow may hold what is not UTF-8.
        except (FormatError, UnicodeDecodeError, OSError) as error:
            raise self.where.error(f"cannot be read: {one_line(error)}") from error

    def content_digest(self) -> str:
        """sha256 over the texts in order."""
        files = dict.fromkeys(file["filename"] for piece in self._pieces for file in piece.table.cache_files)
        if not files:
            return self._hash_texts()
        rows = "" if self._is_one_split() else "".join(f" {piece.split}{piece.rows}" for piece in self._pieces)
        try:
            stamps = [file_stamp(Path(file)) for file in files]
        except OSError as error:
            raise self.where.error(f"cannot be read: {one_line(error)}") from error
        return self._digests.remembered(f"hf {self.where.value} {self._text_field}{rows}", stamps, self._hash_texts)

    def without(self, held_out: HfSource) -> tuple[HfSource, str]:
        """This source without the rows that ``held_out`` has too, and a line that says so, or an empty one."""
        taken = [(piece.split, piece.rows) for piece in held_out._pieces]
        if any(mine.split != other and set(mine.split) & set(other) for mine in self._pieces for other, _ in taken):
            raise self.where.error(f"shares files with {held_out.where.field}; name slices of the same splits in both")
        left = [
            replace(piece, rows=rows)
            for piece in self._pieces
            for rows in without_rows(piece.rows, [gone for split, gone in taken if split == piece.split])
        ]
        before, after = (sum(len(piece.rows) for piece in pieces) for pieces in (self._pieces, left))
        if before == after:
            return self, ""
        if not left:
            raise self.where.error(f"all its rows are in {held_out.where.field} too; nothing is left to train on")
        found = copy.copy(self)
        found._pieces = left
        note = f"{before - after:,} of {before:,} rows are in {held_out.where.field} too: they validate only"
        return found, f"{self.where.field}={one_line(self.where.value)}: {note}"

    def _is_one_split(self) -> bool:
        return len(self._pieces) == 1 and self._pieces[0].whole

    def _hash_texts(self) -> str:
        digest = hashlib.sha256(f"hf\n{self._text_field}\n".encode())
        for document in self.documents():
            digest.update(len(document.identity).to_bytes(8))
            digest.update(document.identity)
        return digest.hexdigest()


def _pieces(datasets: Any, where: PathSetting) -> list[_Piece]:
    """The rows that the setting names, each once."""
    # Folders may have an "@" in their names.
    is_folder = os.path.isdir(os.path.expanduser(where.value))
    name, _, splits = (where.value, "", "") if is_folder or "@" not in where.value else where.value.rpartition("@")
    try:
        slices = parse_slices(splits or "train")
    except ValueError as error:
        raise where.error(str(error)) from error
    pieces: list[_Piece] = []
    tables: dict[str, Any] = {}
    try:
        load = _loader(datasets, name, named=bool(splits))
        for part in slices:
            if part.split not in tables:
                tables[part.split] = load(part)
            table = tables[part.split]
            files = tuple(file["filename"] for file in table.cache_files) or (f"{os.path.realpath(name)} {part.split}",)
            taken = [piece.rows for piece in pieces if piece.split == files]
            pieces += [_Piece(files, table, rows) for rows in without_rows(part.rows(len(table)), taken)]
    except Exception as error:
        # The library raises its own, the hub's, the file system's and the network's errors here.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise where.error(f"the data set cannot be loaded: {reason}") from error
    if not pieces:
        raise where.error("names no rows")
    return pieces


def _loader(datasets: Any, name: str, named: bool) -> Callable[[Slice], Any]:
    """What loads the whole of a split; ``named`` says whether a split is asked for."""
    directory = Path(os.path.expanduser(name))
    if (directory / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(directory))
        return lambda part: _split_of(saved, part.split)
    if (directory / "state.json").is_file():
        table = datasets.load_from_disk(str(directory))
        # A split that was saved by itself may have forgotten its name, or have been cut from one.
        own = parse_slices(str(table.split or "train"))[0].split
        return lambda part: _split_of({own if named else part.split: table}, part.split)
    if directory.is_dir():
        return lambda part: _of_folder(datasets, directory, part.split)
    hub_name, _, configuration = name.partition(":")
    return lambda part: datasets.load_dataset(hub_name, configuration or None, split=part.split)


def _of_folder(datasets: Any, directory: Path, split: str) -> Any:
    """A split of the data files in a folder, which the library reads anew if they changed after it cached them.

    It tells changed files by their modification time, which can be set back.
    """
    table = datasets.load_dataset(str(directory), split=split)
    changed = max((file_stamp(path).changed_ns for path in directory.rglob("*") if path.is_file()), default=0)
    if any(file_stamp(Path(file["filename"])).changed_ns <= changed for file in table.cache_files):
        table = datasets.load_dataset(str(directory), split=split, download_mode="force_redownload")
    return table


def _split_of(splits: Any, name: str) -> Any:
    if name not in splits:
        raise ValueError(f"it has no split {name}, only {', '.join(map(str, splits))}")
    return splits[name]
