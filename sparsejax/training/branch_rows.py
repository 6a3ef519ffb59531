"""The rows of the branch test, their CSV file, and what several of them say together. Plain Python.

A *branch* is one continuation of a saved state: ``change`` says what was done to the topology before its first step
(``none``, ``drop``, ``rewire``), ``form`` in which optimizer form it went on. For every step

    excess = loss - loss of (none, same form)

and from the excess follow the two parts of a spike: the *drop damage* is the excess of ``drop``, the *cold start* of
a form is the excess of ``rewire`` less that of ``drop``.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import get_type_hints

from sparsejax.config import ConfigError

CHANGES = ("none", "drop", "rewire")
FORMS = ("smet", "naive", "smet_code")


@dataclasses.dataclass(frozen=True)
class BranchRow:
    """One step of one branch.

    Attributes:
      run: name of the run directory.
      seeds: its seeds of weights, topology and data, such as "0-0-0".
      method: name of its method.
      block: rows x columns of a block, such as "16x16".
      density: requested density.
      b2: decay of the second moment.
      fade_steps: steps over which the dropped blocks fade out before they go.
      saturate: updates that were added to every age.
      rewire_step: the step whose rewiring is looked at.
      rate: share of the blocks it replaces.
      form: optimizer form of the branch.
      change: ``none``, ``drop`` or ``rewire``.
      step: steps since the branches parted; 1 is the first loss after it.
      loss: training loss of that step, in nats a token.
      excess: ``loss`` less that of the branch ``none`` of the same form.
    """

    run: str
    seeds: str
    method: str
    block: str
    density: float
    b2: float
    fade_steps: int
    saturate: int
    rewire_step: int
    rate: float
    form: str
    change: str
    step: int
    loss: float
    excess: float

    @property
    def setting(self) -> Setting:
        """What the row's group has in common."""
        return Setting(self.method, self.block, self.density, self.b2, self.fade_steps, self.saturate)


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What branch tests must share to be averaged; fields as in ``BranchRow``."""

    method: str
    block: str
    density: float
    b2: float
    fade_steps: int
    saturate: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error, which one seed alone does not have."""

    mean: float
    error: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """The parts of the spike of one setting, each first averaged over the checkpoints of a seed, then over seeds.

    Attributes:
      setting: what was averaged.
      seeds: number of seeds.
      rewirings: number of rewirings looked at, all seeds together.
      drop_damage: by form; ``cold_start``: by form. In nats a token.
      smet_over_naive: cold start of ``smet`` over that of ``naive``, error by jackknife over seeds; None where naive
        has no cold start above 0.
    """

    setting: Setting
    seeds: int
    rewirings: int
    drop_damage: dict[str, Estimate]
    cold_start: dict[str, Estimate]
    smet_over_naive: Estimate | None


Reduce = Callable[[Sequence[float]], float]


def mean_of_first(steps: int) -> Reduce:
    """The mean over the first ``steps`` steps of a curve."""
    return lambda curve: fmean(curve[:steps])


def peak(curve: Sequence[float]) -> float:
    """The highest point of a curve."""
    return max(curve)


def summarise(rows: Sequence[BranchRow], reduce: Reduce) -> list[Summary]:
    """One summary per setting, in order of appearance; ``reduce`` turns a curve over steps into one number.

    Raises:
      ValueError: a rewiring lacks one of its branches.
    """
    settings = list(dict.fromkeys(row.setting for row in rows))
    return [_summary(setting, [row for row in rows if row.setting == setting], reduce) for setting in settings]


def mean_curve(rows: Sequence[BranchRow], form: str, change: str) -> list[float]:
    """Excess of a branch at every step, mean over all rewirings and seeds of the rows."""
    curves = [
        curve for by_branch in _curves(rows).values() for branch, curve in by_branch.items() if branch == (form, change)
    ]
    return [fmean(values) for values in zip(*curves, strict=True)]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error, ``stdev / sqrt(n)``."""
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate | None:
    """Ratio of two means over the same seeds, with the jackknife's standard error; None if one divides by 0 or less.

    With ``r_i`` the ratio without seed i: ``error^2 = (n - 1) / n sum (r_i - mean r)^2``.
    """
    count, total = len(above), sum(below)
    if min([total, *(total - one for one in below)] if count > 1 else [total]) <= 0:
        return None
    whole = sum(above) / total
    if count < 2:
        return Estimate(whole, None)
    left_out = [(sum(above) - one) / (total - other) for one, other in zip(above, below, strict=True)]
    centre = fmean(left_out)
    return Estimate(whole, math.sqrt((count - 1) / count * sum((r - centre) ** 2 for r in left_out)))


def rows_text(rows: Sequence[BranchRow]) -> str:
    """A CSV table, which ``read_rows`` reads back."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(get_type_hints(BranchRow)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    return text.getvalue()


def read_rows(path: Path) -> list[BranchRow]:
    """Read a CSV table of ``rows_text``; another header raises ``ConfigError``."""
    kinds = get_type_hints(BranchRow)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(kinds):
            raise ConfigError(f"{path}: is no table of the branch test (columns {', '.join(reader.fieldnames or [])})")
        return [BranchRow(**{name: kinds[name](text) for name, text in row.items()}) for row in reader]


_Rewiring = tuple[str, str, int]
_Branch = tuple[str, str]


def _curves(rows: Sequence[BranchRow]) -> dict[_Rewiring, dict[_Branch, list[float]]]:
    """Excess over steps, by (seeds, run, rewire step) and by (form, change)."""
    found: dict[_Rewiring, dict[_Branch, dict[int, float]]] = {}
    for row in rows:
        by_branch = found.setdefault((row.seeds, row.run, row.rewire_step), {})
        by_branch.setdefault((row.form, row.change), {})[row.step] = row.excess
    return {
        rewiring: {branch: [curve[step] for step in sorted(curve)] for branch, curve in by_branch.items()}
        for rewiring, by_branch in found.items()
    }


def _summary(setting: Setting, rows: Sequence[BranchRow], reduce: Reduce) -> Summary:
    by_seed: dict[str, list[dict[_Branch, list[float]]]] = {}
    for (seeds, run, step), by_branch in _curves(rows).items():
        missing = [(form, change) for form in FORMS for change in CHANGES if (form, change) not in by_branch]
        if missing:
            raise ValueError(f"run {run}, rewiring {step}: has no branch {missing[0]}")
        by_seed.setdefault(seeds, []).append(by_branch)

    def damage(by_branch: dict[_Branch, list[float]], form: str) -> float:
        return reduce(by_branch[form, "drop"])

    def cold(by_branch: dict[_Branch, list[float]], form: str) -> float:
        pairs = zip(by_branch[form, "rewire"], by_branch[form, "drop"], strict=True)
        return reduce([full - dropped for full, dropped in pairs])

    def over_seeds(part: Callable[[dict[_Branch, list[float]], str], float], form: str) -> list[float]:
        return [fmean(part(by_branch, form) for by_branch in rewirings) for rewirings in by_seed.values()]

    return Summary(
        setting=setting,
        seeds=len(by_seed),
        rewirings=sum(len(rewirings) for rewirings in by_seed.values()),
        drop_damage={form: estimate(over_seeds(damage, form)) for form in FORMS},
        cold_start={form: estimate(over_seeds(cold, form)) for form in FORMS},
        smet_over_naive=ratio(over_seeds(cold, "smet"), over_seeds(cold, "naive")),
    )
