"""When to rewire and what fraction to drop: plain host arithmetic, so that no program depends on it."""

from __future__ import annotations

import math

# WSD holds its start for this part of the schedule, then falls linearly to this part of the start.
_WSD_HOLD, _WSD_FLOOR = 0.9, 0.1


def interpolate(shape: str, start: float, end: float, step: float, total: float) -> float:
    """Value of a schedule at ``step`` of ``total``; from ``total`` on it stays at its end value.

    With ``x = step / total``: cosine ``end + (start - end) (1 + cos(pi x)) / 2``; linear
    ``start + (end - start) x``; constant ``start``; wsd: ``start`` for 90 %, then linearly to ``start / 10``.
    The published code lets the cosine rise again after ``total``; here it does not.

    Raises:
      ValueError: ``shape`` is not one of the four names.
    """
    x = min(max(step / total, 0.0), 1.0) if total > 0 else 1.0
    if shape == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * x)) / 2
    if shape == "linear":
        return start + (end - start) * x
    if shape == "constant":
        return start
    if shape == "wsd":
        fall = max(x - _WSD_HOLD, 0.0) / (1 - _WSD_HOLD)
        return start * (1 - (1 - _WSD_FLOOR) * fall)
    raise ValueError(f"schedule {shape!r}: must be cosine, linear, constant or wsd")


def last_rewiring_step(steps: int, stop_fraction: float) -> int:
    """The last step after which a rewiring may happen; the final step never is one (its growth would never train)."""
    return min(round(stop_fraction * steps), steps - 1)


def rewires_after(step: int, every: int, steps: int, stop_fraction: float) -> bool:
    """Whether the topology changes after optimizer step number ``step`` (the first step is number 1)."""
    return step > 0 and step % every == 0 and step <= last_rewiring_step(steps, stop_fraction)


def drop_rate(shape: str, start: float, end: float, step: int, steps: int, stop_fraction: float) -> float:
    """Fraction of a share's active blocks to drop after step ``step``; it reaches ``end`` when rewiring stops."""
    return interpolate(shape, start, end, step, round(stop_fraction * steps))
