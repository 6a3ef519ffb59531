"""The points of a sweep: settings that differ from one to the next, their names, and the flags that make them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.config import ConfigError

METHOD = "topology.method"
# The name of a point that changes nothing.
UNCHANGED = "base"
# What a directory name may hold anywhere; '=' and ',' are what names are made of.
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]+")


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
      name: stable and readable, such as ``method=rigl,lr=0.004``; the name of its directory.
      settings: ``section.field`` -> value, in the order in which they are set.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def flags(self) -> tuple[str, ...]:
        """The settings as the command line takes them: ``--config.section.field=value``."""
        return tuple(f"--config.{key}={_flag_text(value)}" for key, value in self.settings.items())


def read_points(points: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    """The named points of an ablation file, in its order; the first one is what the others are compared with.

    Raises:
      ConfigError: there is none, two have one name, or ``topology.method`` is not set first (it brings the choices of
        its method, which would replace those set before it).
    """
    named = tuple(Point(point_name(settings), dict(settings)) for settings in points)
    if not named:
        raise ConfigError("points(): is empty; a sweep needs at least one point")
    names = [point.name for point in named]
    for point in named:
        if names.count(point.name) > 1:
            raise ConfigError(f"points(): two points are called '{point.name}'; points must differ")
        if METHOD in point.settings and next(iter(point.settings)) != METHOD:
            raise ConfigError(f"points(): '{point.name}' must set {METHOD} first, since it brings other settings")
    return named


def point_name(settings: Mapping[str, Any]) -> str:
    """``field=value`` for each setting, joined by commas; with its section where two fields share a name."""
    fields = [key.rpartition(".")[2] for key in settings]
    parts = [
        f"{field if fields.count(field) == 1 else key}={_name_text(value)}"
        for field, (key, value) in zip(fields, settings.items(), strict=True)
    ]
    return ",".join(parts) or UNCHANGED


def select(points: Sequence[Point], text: str) -> tuple[Point, ...]:
    """The points that a comma-separated list names; names hold commas themselves, so the longest one wins.

    Raises:
      ConfigError: a part of the list that is no point.
    """
    by_name = {point.name: point for point in points}
    chosen, rest = [], text.split(",")
    while rest:
        lengths = [length for length in range(len(rest), 0, -1) if ",".join(rest[:length]) in by_name]
        if not lengths:
            known = ", ".join(by_name)
            raise ConfigError(f"--only={','.join(rest)}: begins with no point of this sweep; it has {known}")
        chosen.append(by_name[",".join(rest[: lengths[0]])])
        rest = rest[lengths[0] :]
    return tuple(point for point in points if point in chosen)


def _flag_text(value: Any) -> str:
    return repr(value) if isinstance(value, tuple | float | bool) else str(value)


def _name_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ("x" if all(isinstance(item, int) for item in value) else "+").join(map(_name_text, value)) or "none"
    return _UNSAFE.sub("_", str(value)) or "none"
