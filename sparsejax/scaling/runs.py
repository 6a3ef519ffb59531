"""The row a finished run leaves behind in ``result.json``, and the only thing that scaling reads of a run.

Plain Python, so that laws can be fitted where no jax is installed. The trainer builds a ``RunResult`` and writes it;
everything here afterwards only reads. Reading is strict: a row that another version wrote, or that somebody edited,
is refused in one line instead of entering a fit with a default in it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec

from sparsejax.config import ConfigError
from sparsejax.files.durable import replace_file
from sparsejax.files.json_records import NOT_FINITE, json_row, read_record, sealed, unsealed
from sparsejax.files.text import one_line

SCHEMA = 2
_FIX = "restore it from a copy, or leave the run out"
_LARGEST_COUNT = 2**63


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
      schema: version of this row, ``SCHEMA``; a row of another version is refused.
      name: the run's own name, the last part of its directory.
      size: name of the model size, or "custom".
      total_parameters: parameters of the dense twin, embedding, head and norms included.
      active_parameters: parameters that exist at the end of training: active blocks and all dense parts.
      non_embedding_parameters: active parameters without embedding and head.
      mean_active_parameters: active parameters averaged over the steps, which differs only where counts move.
      unique_tokens: distinct training tokens the run drew from.
      total_tokens: training tokens seen, repetitions counted.
      epochs: ``total_tokens / unique_tokens``.
      density: realised share of active weights among the sparse parts, in (0, 1].
      block: rows and columns of a block, in weights.
      method: name of the sparse-training method.
      batch_size: rows of one optimizer step.
      sequence_length: tokens of one row.
      steps: optimizer steps taken.
      peak_lr: peak learning rate of a dense weight, before the density rule.
      schedule: shape of the learning rate.
      decay_finished: whether the learning rate reached the end of its shape; False for a run cut short.
      seed_init: seed of the weights.
      seed_topology: seed of first topology and rewiring.
      seed_data: seed of the order of the data.
      started_from: sha256 of the dense weights that the run began with; empty where they were drawn.
      data_digest: sha256 of the tokens the run drew from.
      tokenizer_digest: sha256 of the tokenizer.
      train_loss: mean loss of the last logging interval, in nats/token.
      validation_loss: loss on the fixed validation split after the last step, in nats/token.
      bits_per_byte: validation loss in bits per byte of text, comparable between tokenizers.
      loss_spike: largest rise of the loss over the mean of the interval before it, in nats/token; 0 if none.
      seconds: wall-clock time spent training, in s, interruptions not counted.
      executed_flops: floating-point operations the compiled programs executed in all steps, in FLOP.
      theoretical_flops: those that the active weights alone need in all steps, in FLOP. Never a basis of MFU.
      device: device kind and count, such as "TPU v5 lite x 4".
      versions: name and version of Python and of each library that decides the arithmetic.
      git_commits: of the code that trained it, in order, comma-separated; ``+changes`` is code edited after a commit.
    """

    schema: int
    name: str
    size: str
    total_parameters: int
    active_parameters: int
    non_embedding_parameters: int
    mean_active_parameters: float
    unique_tokens: int
    total_tokens: int
    epochs: float
    density: float
    block: tuple[int, int]
    method: str
    batch_size: int
    sequence_length: int
    steps: int
    peak_lr: float
    schedule: str
    decay_finished: bool
    seed_init: int
    seed_topology: int
    seed_data: int
    started_from: str
    data_digest: str
    tokenizer_digest: str
    train_loss: float
    validation_loss: float
    bits_per_byte: float
    loss_spike: float
    seconds: float
    executed_flops: float
    theoretical_flops: float
    device: str
    versions: dict[str, str]
    git_commits: str


def write(result: RunResult, path: Path) -> None:
    """Write the row as JSON with a digest, whole or not at all; what is not finite is null, see ``json_row``."""
    row = json.loads(json_row(dataclasses.asdict(result)))
    replace_file(path, json.dumps(sealed(row), indent=2) + "\n")


def read(path: Path) -> RunResult:
    """Read one row.

    Raises:
      ConfigError: ``path`` does not hold a complete row of this ``SCHEMA``, or another one than was written.
    """
    row = unsealed(read_record(path, dict[str, Any], fix=_FIX), name=path, fix=_FIX)
    return typed_row(row, one_line(path))


def typed_row(row: dict[str, Any], where: str) -> RunResult:
    """A row as JSON has it, checked field by field.

    Raises:
      ConfigError: another schema, a field that is missing, unknown or of another type; the line begins with ``where``.
    """
    if "schema" not in row or row["schema"] != SCHEMA:
        found = row["schema"] if "schema" in row else "none"
        raise ConfigError(f"{where}: schema {one_line(found)} is not {SCHEMA}, the one this version reads")
    names = {field.name for field in dataclasses.fields(RunResult)}
    given = row.keys() - {NOT_FINITE}
    for problem, wrong in (("missing", names - given), ("unknown", given - names)):
        if wrong:
            raise ConfigError(f"{where}: {problem} {one_line(', '.join(sorted(wrong)))}; {_FIX}")
    try:
        words = msgspec.convert(row.get(NOT_FINITE, {}), dict[str, str])
        values = {key: _number(value, words.get(key, "")) for key, value in row.items() if key != NOT_FINITE}
        return msgspec.convert(values, RunResult)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: holds another value than it should ({one_line(error)}); {_FIX}") from None


def _number(value: Any, word: str) -> Any:
    """A value of JSON, with what ``json_row`` made of numbers that are not finite undone."""
    if value is None and word in ("nan", "inf", "-inf"):
        return float(word)
    if isinstance(value, int) and abs(value) >= _LARGEST_COUNT:
        raise msgspec.ValidationError(f"{one_line(value, 40)} is too large for a count")
    return value
