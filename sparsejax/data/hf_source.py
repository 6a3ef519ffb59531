"""A data set of the Hugging Face ``datasets`` library (the extra ``hf``)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests, file_stamp
from sparsejax.data.document import Document
from sparsejax.data.file_source import missing_field
from sparsejax.data.foreign_text import FormatError, MissingField, text_of
from sparsejax.data.paths import PathSetting
from sparsejax.data.whole_source import WholeSource
from sparsejax.files.text import one_line


class HfSource(WholeSource):
    """The rows of one split of a data set, in its order; a document's identity is its text."""

    name = "hf"

    def __init__(self, where: PathSetting, text_field: str, digests: FileDigests) -> None:
        """Loads the data set (downloading it if needed).

        Args:
          where: ``name``, ``name:configuration`` or a local directory (of data files, or saved by
            ``save_to_disk``), each with an optional ``@split``; the split is ``train`` if none is named.
          text_field: the column that holds the text.
          digests: remembers the digest for as long as the library's cache files do not change.

        Raises:
          ConfigError: the library is missing, the data set cannot be loaded, or has no such column.
        """
        try:
            import datasets
        except ImportError as error:
            raise ConfigError(
                "data.source=hf: the package 'datasets' is not installed; run pip install 'sparsejax[hf]'"
            ) from error
        self._rows = _load(datasets, where)
        self._text_field = text_field
        self._where = where
        self._digests = digests
        if text_field not in self._rows.column_names:
            absent = MissingField(where.value, self._rows.column_names)
            raise missing_field(text_field, absent.place, absent)

    def documents(self) -> Iterator[Document]:
        """One document per row that has text; raises ``ConfigError`` for a row that cannot be read."""
        try:
            for number, row in enumerate(self._rows.select_columns([self._text_field])):
                text = text_of(row[self._text_field], f"row {number}")
                if text:
                    yield Document.of_text(text)
        # A string column of Arrow may hold what is not UTF-8.
        except (FormatError, UnicodeDecodeError, OSError) as error:
            raise self._where.error(f"cannot be read: {one_line(error)}") from error

    def content_digest(self) -> str:
        """sha256 over the texts in order."""
        stamps = [file_stamp(Path(file["filename"])) for file in self._rows.cache_files]
        if not stamps:
            return self._hash_texts()
        # A slice such as name@train[:10%] shares its files with the whole, so the value is part of the purpose.
        return self._digests.remembered(f"hf {self._where.value} {self._text_field}", stamps, self._hash_texts)

    def _hash_texts(self) -> str:
        digest = hashlib.sha256(f"hf\n{self._text_field}\n".encode())
        for document in self.documents():
            digest.update(len(document.identity).to_bytes(8))
            digest.update(document.identity)
        return digest.hexdigest()


def _load(datasets: Any, where: PathSetting) -> Any:
    rest, _, split = where.value.partition("@")
    split = split or "train"
    directory = Path(os.path.expanduser(rest))
    try:
        if (directory / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(directory))[split]
        if (directory / "state.json").is_file():
            return datasets.load_from_disk(str(directory))
        if directory.is_dir():
            return datasets.load_dataset(str(directory), split=split)
        name, _, configuration = rest.partition(":")
        return datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:
        # The library raises its own, the hub's, the file system's and the network's errors here.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise where.error(f"the data set cannot be loaded: {reason}") from error
