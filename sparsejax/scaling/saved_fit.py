"""``fit.json``: a fit as the other commands read it. NumPy only, so that advice starts at once."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.files.json_records import read_record, sealed, unsealed
from sparsejax.files.text import one_line
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.laws.registry import LAWS, law_named
from sparsejax.scaling.rows import CONVENTIONS

SCHEMA = 1


@dataclasses.dataclass(frozen=True, eq=False)
class SavedFit:
    """What is known of a law.

    Attributes:
      law: the law.
      values: every parameter.
      samples: every parameter ``[K]`` from the bootstrap; empty where none was made.
      noise: standard deviation around the law, as its residuals compare losses: of log loss, or of the loss itself.
      noise_of: what ``noise`` was measured on, in words.
      ranges: least and greatest value of every column in the fitted runs.
      convention: what N counts.
      origin: where the numbers come from, in words.
      tokens_in: what D counts, ``"tokens"`` or ``"steps"``.
      tokenizer: that of the fitted runs; empty where it is not known.
      text: the data of the fitted runs; empty where it is not known.
    """

    law: Law
    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray]
    noise: float
    noise_of: str
    ranges: Mapping[str, tuple[float, float]]
    convention: str
    origin: str
    tokens_in: str = "tokens"
    tokenizer: str = ""
    text: str = ""

    def sample(self, k: int) -> dict[str, float]:
        """Parameters of one bootstrap refit."""
        return {name: float(values[k]) for name, values in self.samples.items()}

    @property
    def count(self) -> int:
        """Number of bootstrap refits."""
        return len(next(iter(self.samples.values()))) if self.samples else 0


def published_default() -> SavedFit:
    """The published sparse law of repeated data; arXiv 2606.01155 gives no intervals.

    ``noise`` is the root mean square of its log errors on the 11 runs that its authors held out.
    """
    law = LAWS["sparse_repeated"]
    published = law.published[0]
    return SavedFit(
        law=law,
        values=dict(published.values),
        samples={},
        noise=0.00743,
        noise_of="the 11 runs that arXiv 2606.01155 held out",
        # Total parameters times density; epochs and densities as its section on experiments has them.
        ranges={"N": (1e6, 1.99e9), "U": (2e8, 2.6e9), "D": (2e8, 4.16e10), "S": (0.0625, 1.0), "epochs": (1.0, 16.0)},
        convention="total_times_density",
        origin=published.origin,
    )


def json_text(document: Mapping[str, Any]) -> str:
    """The content of a ``fit.json``, with a digest; infinite numbers are written as text."""
    return json.dumps(sealed(finite(document)), indent=1, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The same document with ``inf``, ``-inf`` and ``nan`` as text, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class _Record(msgspec.Struct):
    """What is read of a ``fit.json``; numbers that JSON does not have are text, older files lack the last fields."""

    law: str
    values: dict[str, float | str]
    samples: dict[str, list[float | str]]
    scale: float
    ranges: dict[str, tuple[float, float]]
    convention: str
    runs: int
    source: str
    residual: Literal["log", "linear", ""] = ""
    tokens_in: str = "tokens"
    tokenizer: str = ""
    text: str = ""


def read(path: Path) -> SavedFit:
    """Read a ``fit.json``.

    Raises:
      ConfigError: no such file, not a fit, one of another version, or another than was written.
    """
    fix = "make it again with 'sparsejax fit'"
    where = f"--fit={one_line(path)}"
    found = unsealed(read_record(path, dict[str, Any], fix=fix), name=path, fix=fix)
    if found.get("schema") != SCHEMA:
        raise ConfigError(f"{where}: is no fit of schema {SCHEMA}; {fix}")
    try:
        record = msgspec.convert(found, _Record)
        law = law_named(record.law)
        if record.residual and record.residual != law.residual:
            law = dataclasses.replace(law, residual=record.residual)
        values = {name: _finite(name, record.values[name]) for name in law.names}
        samples = {name: np.array([_finite(name, one) for one in record.samples[name]]) for name in record.samples}
        _check_whole(record, law, samples)
    except KeyError as error:
        raise ConfigError(f"{where}: has no {error}; {fix}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: is not a whole fit: {one_line(error)}; {fix}") from None
    return SavedFit(
        law=law,
        values=values,
        samples=samples,
        noise=record.scale,
        noise_of="the fitted runs",
        ranges=record.ranges,
        convention=record.convention,
        origin=f"{one_line(path)} ({record.runs} runs of {one_line(record.source)})",
        tokens_in=record.tokens_in,
        tokenizer=record.tokenizer,
        text=record.text,
    )


def _finite(name: str, value: float | str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}={value} is not finite")
    return number


def _check_whole(record: _Record, law: Law, samples: Mapping[str, np.ndarray]) -> None:
    if samples and (set(samples) != set(law.names) or len({len(one) for one in samples.values()}) > 1):
        raise ValueError("samples are not those of every parameter, equally many")
    if not 0 <= record.scale < math.inf:
        raise ValueError(f"scale={record.scale} is not a size of errors")
    if record.convention not in CONVENTIONS:
        raise ValueError(f"convention={record.convention} is unknown")
    for name, (low, high) in record.ranges.items():
        if not 0 < low <= high < math.inf:
            raise ValueError(f"ranges: {name} from {low} to {high}")
