"""Prompts from a file."""

from __future__ import annotations

import json
from pathlib import Path

from sparsejax.config import ConfigError


def read_prompts(path: str) -> list[str]:
    """The prompts of a file: ``prompt`` of every line of a ``.jsonl``, else one a line; empty lines are left out.

    Raises:
      ConfigError: there is no such file, it is no text, a line is no object with a ``prompt``, or there is none.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts={path}: cannot be read ({error}); name a text file") from error
    if not lines:
        raise ConfigError(f"--prompts={path}: holds no prompt; write one a line")
    return [_prompt(path, line) for line in lines] if path.endswith(".jsonl") else lines


def _prompt(path: str, line: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--prompts={path}: the line {line[:40]!r} is no object with a key 'prompt'") from error
    if not isinstance(prompt, str):
        raise ConfigError(f"--prompts={path}: the prompt {prompt!r} is no text")
    return prompt
