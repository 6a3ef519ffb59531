"""The small file beside a saved tokenizer: its kind and the ids that stand for the ends of a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec

from sparsejax.files.durable import make_folder, replace_file
from sparsejax.files.json_records import read_record

# Ids are below it: many times the largest vocabulary in use, and far from what an int32 target or memory cannot hold.
MAX_VOCABULARY = 2**24
FIX = "restore the tokenizer's folder from a copy"

_FILE = "tokenizer_meta.json"
_Id = Annotated[int, msgspec.Meta(ge=0, lt=MAX_VOCABULARY)]


class TokenizerMeta(msgspec.Struct, frozen=True):
    """The facts that a tokenizer's own file does not hold.

    Attributes:
      kind: names the class that opens it.
      start_id: the input in front of a row's first target.
      end_id: stands after every document.
    """

    kind: str
    start_id: _Id
    end_id: _Id

    def write(self, directory: Path) -> None:
        """Writes it into ``directory``, which is created if absent."""
        make_folder(directory)
        fields = {"kind": self.kind, "start_id": self.start_id, "end_id": self.end_id}
        replace_file(directory / _FILE, json.dumps(fields) + "\n")

    @classmethod
    def read(cls, directory: Path) -> TokenizerMeta:
        """Reads it back; raises ``ConfigError`` if it is absent or not what ``write`` wrote."""
        return read_record(directory / _FILE, cls, fix=FIX)
