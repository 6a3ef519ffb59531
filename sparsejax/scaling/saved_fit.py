"""``fit.json``: a fit as the other commands read it. NumPy only, so that advice starts at once."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.laws.registry import LAWS, law_named

SCHEMA = 1


@dataclasses.dataclass(frozen=True, eq=False)
class SavedFit:
    """What is known of a law.

    Attributes:
      law: the law.
      values: every parameter.
      samples: every parameter ``[K]`` from the bootstrap; empty where none was made.
      noise: standard deviation of log loss around the law, in nats of log loss.
      noise_of: what ``noise`` was measured on, in words.
      ranges: least and greatest value of every column in the fitted runs.
      convention: what N counts.
      origin: where the numbers come from, in words.
    """

    law: Law
    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray]
    noise: float
    noise_of: str
    ranges: Mapping[str, tuple[float, float]]
    convention: str
    origin: str

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
    """The content of a ``fit.json``; infinite numbers are written as text."""
    return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The same document with ``inf``, ``-inf`` and ``nan`` as text, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read(path: Path) -> SavedFit:
    """Read a ``fit.json``.

    Raises:
      ConfigError: no such file, not a fit, or one of another version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"--fit={path}: cannot be read: {error}") from None
    if not isinstance(document, dict) or "schema" not in document or document["schema"] != SCHEMA:
        raise ConfigError(f"--fit={path}: no fit of schema {SCHEMA}; make it with 'sparsejax fit'")
    try:
        law = law_named(document["law"])
        samples = {name: np.array(values, dtype=np.float64) for name, values in document["samples"].items()}
        return SavedFit(
            law=law,
            values={name: float(document["values"][name]) for name in law.names},
            samples=samples,
            noise=float(document["scale"]),
            noise_of="the fitted runs",
            ranges={name: (float(low), float(high)) for name, (low, high) in document["ranges"].items()},
            convention=document["convention"],
            origin=f"{path} ({document['runs']} runs of {document['source']})",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--fit={path}: not a whole fit: {error}; make it again with 'sparsejax fit'") from None
