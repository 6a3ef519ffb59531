"""The small file beside a saved tokenizer: its kind and the ids that stand for the ends of a document."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "tokenizer_meta.json"


@dataclass(frozen=True)
class TokenizerMeta:
    """What a tokenizer's own file does not say.

    Attributes:
      kind: names the class that opens it.
      start_id: the input in front of a row's first target.
      end_id: stands after every document.
    """

    kind: str
    start_id: int
    end_id: int

    def write(self, directory: Path) -> None:
        """Writes it into ``directory``, which is created if absent."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _FILE).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, directory: Path) -> TokenizerMeta:
        """Reads it back; raises ``OSError`` if it is absent, ``ValueError`` if it is not what ``write`` wrote."""
        fields = json.loads((directory / _FILE).read_text())
        try:
            return cls(str(fields["kind"]), int(fields["start_id"]), int(fields["end_id"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{_FILE} lacks a field: {error}") from error
