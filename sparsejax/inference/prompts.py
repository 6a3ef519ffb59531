"""Prompts from a file."""

from __future__ import annotations

import msgspec

from sparsejax.config import ConfigError
from sparsejax.files.json_records import decode_record
from sparsejax.files.places import place_of
from sparsejax.files.text import decode_text, lines_of, one_line


class _Line(msgspec.Struct):
    prompt: str


def read_prompts(path: str) -> list[str]:
    """The prompts of a file: ``prompt`` of every line of a ``.jsonl``, else one a line; empty lines are left out.

    Lines end at line feeds only, and a byte order mark at the start belongs to no prompt.

    Raises:
      ConfigError: there is no such file, it is not UTF-8, a line is no object with a ``prompt``, or there is none.
    """
    name = f"--prompts={one_line(path)}"
    try:
        content = place_of("prompts", path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror or one_line(error)}); name a text file") from error
    lines = [(number, line) for number, line in enumerate(lines_of(decode_text(content, name)), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"{name}: holds no prompt; write one a line")
    if not path.endswith(".jsonl"):
        return [line for _, line in lines]
    fix = "each line must be an object with a text 'prompt'"
    return [
        decode_record(line.encode(), _Line, name=f"{name}: line {number}", fix=fix).prompt for number, line in lines
    ]
