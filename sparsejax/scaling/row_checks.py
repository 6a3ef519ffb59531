"""Rows that cannot stand in one fit: impossible numbers, losses of another text, the same run twice, other units."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line

if TYPE_CHECKING:
    from sparsejax.scaling.rows import ScalingRow

# Both losses of a run are of one sum, so their ratio is exact but for rounding.
_ONE_TEXT = 1e-6
# A loss with fewer digits may be equal by chance in two runs.
_DIGITS_OF_ONE_RUN = 7
# No run has fewer parameters or tokens, more parameters for a token, or more epochs; other units do.
_FEWEST, _MOST_PER_TOKEN, _MOST_EPOCHS = 1e4, 1e3, 1e5


def check_row(row: ScalingRow, source: str, conventions: Sequence[str]) -> None:
    """Refuse a row that no run can have; raises ``ConfigError`` with its place, column and value."""
    where = f"{source}: {row.where}:"
    if row.convention not in conventions:
        raise ConfigError(
            f"{where} convention={one_line(row.convention)}: unknown; use one of {', '.join(conventions)}"
        )
    for name in ("parameters", "tokens", "unique_tokens"):
        if not 0 < getattr(row, name) < float("inf"):
            raise ConfigError(f"{where} {name}={getattr(row, name):g}: must be above 0 and finite")
    if not 0 < row.density <= 1:
        raise ConfigError(f"{where} density={row.density:g}: must be in (0, 1]")
    if not abs(row.loss) < float("inf"):
        raise ConfigError(f"{where} loss={row.loss}: must be finite")
    # A last epoch that is not whole may leave a rounding's worth of tokens unseen.
    if row.unique_tokens > row.tokens * (1 + 1e-6):
        raise ConfigError(
            f"{where} unique_tokens={row.unique_tokens:g} exceed tokens={row.tokens:g}: at most as many were seen"
        )


def other_units(parameters: float, tokens: float, unique_tokens: float, tokens_in: str = "tokens") -> str:
    """The reason why these numbers of one run look like millions or billions; empty where they look like counts."""
    named = {"parameters": parameters, "tokens": tokens, "unique_tokens": unique_tokens}
    for name, value in named.items():
        if 0 < value < _FEWEST:
            return f"{name}={value:g} are fewer than {_FEWEST:,.0f}: are they in millions or billions? write counts"
    if tokens_in == "tokens" and parameters > _MOST_PER_TOKEN * tokens:
        return f"parameters={parameters:g} beside tokens={tokens:g}: are both in units of one? write counts"
    if tokens > _MOST_EPOCHS * unique_tokens:
        return f"tokens={tokens:g} beside unique_tokens={unique_tokens:g}: are both in units of one? write counts"
    return ""


def one_value(source: str, rows: Sequence[ScalingRow], field: str, words: str, fix: str) -> str:
    """The value of a field that all rows state, empty ones aside; raises ``ConfigError`` where there are two."""
    first: dict[str, ScalingRow] = {}
    for row in rows:
        first.setdefault(getattr(row, field), row)
    first.pop("", None)
    if len(first) > 1:
        shown = " and as ".join(f"{one_line(value, 80)} ({first[value].where})" for value in sorted(first))
        raise ConfigError(f"{source}: {words} {shown}; {fix}")
    return next(iter(first), "")


def check_measured_alike(source: str, rows: Sequence[ScalingRow]) -> tuple[str, str, str]:
    """Tokenizer, text and unit of tokens that the rows share; empty where no row states it.

    Raises:
      ConfigError: there are two tokenizers, two texts, two units of loss or of tokens: such losses do not compare.
    """
    fix = "their losses do not compare; fit one at a time"
    tokenizer = one_value(source, rows, "tokenizer", "runs of two tokenizers:", fix)
    text = one_value(source, rows, "text", "runs on two data sets, so measured on two texts:", fix)
    unit = one_value(source, rows, "unit", "losses in two units:", fix)
    if unit != "nats/token":
        raise ConfigError(f"{source}: losses in {one_line(unit)}; laws are of nats/token: convert them")
    stated = [row for row in rows if row.bytes_per_token > 0 and not row.text]
    low, high = (pick(stated, key=lambda row: row.bytes_per_token, default=None) for pick in (min, max))
    if low and high and high.bytes_per_token > low.bytes_per_token * (1 + _ONE_TEXT):
        raise ConfigError(
            f"{source}: the text that losses are of has {low.bytes_per_token:.5g} ({low.where}) and "
            f"{high.bytes_per_token:.5g} ({high.where}) bytes a token: it is not one text in one tokenizer; {fix}"
        )
    return tokenizer, text, one_value(source, rows, "tokens_in", "tokens counted as two things:", fix)


def unknown_measures(rows: Sequence[ScalingRow]) -> list[str]:
    """Notes on rows that do not state their tokenizer or text beside others that do."""
    notes = []
    for field in ("tokenizer", "text"):
        silent = [row for row in rows if not getattr(row, field)]
        if 0 < len(silent) < len(rows):
            notes.append(
                f"{len(silent)} of {len(rows)} runs do not state their {field} ({silent[0].where}, ...): "
                "losses compare only if it is that of the others"
            )
    stated = [row.bytes_per_token for row in rows if row.bytes_per_token > 0]
    if stated and max(stated) > min(stated) * (1 + _ONE_TEXT):
        notes.append(
            f"by loss and bits per byte the validation text has {min(stated):.5g} to {max(stated):.5g} bytes a token: "
            "losses compare only if it is one text"
        )
    return notes


def check_different(source: str, rows: Sequence[ScalingRow]) -> list[str]:
    """Refuse the same run twice: counted as two, it makes intervals narrower than they are.

    Returns:
      Notes on runs that are equal in all numbers, where losses have so few digits that it may be chance.

    Raises:
      ConfigError: two rows are equal to the last digit; or they have one name, and losses that differ by rounding.
    """
    alike: Mapping[tuple[float, ...], list[ScalingRow]] = defaultdict(list)
    for row in rows:
        others = [row.others[name] for name in sorted(row.others) if name != "N_bar"]
        alike[row.parameters, row.tokens, row.unique_tokens, row.density, *others].append(row)
    doubtful = []
    for same in alike.values():
        ordered = sorted(same, key=lambda row: row.loss)
        for one, other in itertools.pairwise(ordered):
            equal = one.loss == other.loss
            named = one.name == other.name and bool(one.name)
            certain = named or len(f"{one.loss!r}".strip("-0").replace(".", "")) >= _DIGITS_OF_ONE_RUN
            rounded = named and abs(one.loss - other.loss) <= 1e-6 * abs(one.loss)
            if rounded or (equal and certain):
                raise ConfigError(
                    f"{source}: {one.where} and {other.where} are the same run twice, equal to the last digit; "
                    "leave one out"
                )
            if equal:
                doubtful.append((one, other))
    if not doubtful:
        return []
    one, other = doubtful[0]
    return [
        f"{len(doubtful)} pairs of runs are equal to the last digit ({one.where} and {other.where}, ...): if they are "
        "the same run twice, intervals are too narrow"
    ]


def left_out(rows: int, out: int, source: str, reason: str, flag: str) -> str:
    """The note on rows that were not taken."""
    return f"{source}: {out} of {rows} rows left out: {reason}" + (f"; {flag} takes them" if flag else "")
