"""The configuration of a run: one frozen dataclass per room, resolved and checked before anything compiles.

Outside the package a run is an ``ml_collections.ConfigDict`` (``configs/base.py`` holds every default,
its meaning, unit and legal values, and nothing else holds a default). Inside it is a ``RunConfig``.
``resolve`` is the only way from one to the other: an unknown key, a wrong type, an illegal value or an
impossible combination raises ``ConfigError``, whose text is one line naming the field, the value and the fix.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from sparsejax.combinations import problems
from sparsejax.legal_values import CHOICES, FREE_ON_RESUME, RANGES
from sparsejax.sections import (
    DataConfig,
    InitConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    OuterConfig,
    RunConfig,
    SeedConfig,
    TopologyConfig,
    TrainConfig,
    key_of,
)

__all__ = [
    "CHOICES",
    "FREE_ON_RESUME",
    "KINDS",
    "RANGES",
    "ConfigError",
    "DataConfig",
    "InitConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "OuterConfig",
    "RunConfig",
    "SeedConfig",
    "TopologyConfig",
    "TrainConfig",
    "differing_keys",
    "resolve",
]


# Section -> key -> type.
KINDS: dict[str, dict[str, Any]] = {
    section: {key_of(field): kind for field, kind in get_type_hints(fields).items()}
    for section, fields in get_type_hints(RunConfig).items()
}

# The smallest normal float32: devices take what is smaller for 0.
_SMALLEST = 2.0**-126


class ConfigError(ValueError):
    """A value the user gave that cannot work; ``str(error)`` is the one line to show (exit code 2)."""


def resolve(config: Mapping[str, Any]) -> RunConfig:
    """Turn a nested mapping into a checked ``RunConfig``; raises ``ConfigError`` on the first problem."""
    sections = {field.name: field.type for field in dataclasses.fields(RunConfig)}
    _reject_unknown("", config, sections)
    hints = _hints(RunConfig)
    built = {}
    for name in sections:
        if name not in config:
            raise ConfigError(f"{name}: this section is missing; start from configs/base.py")
        if not hasattr(config[name], "keys"):  # a mapping, or a ConfigDict
            raise ConfigError(f"{name}: is {type(config[name]).__name__}, and must hold settings; see configs/base.py")
        built[name] = _section(name, hints[name], config[name])
    run = RunConfig(**built)
    for problem in problems(run):
        raise ConfigError(problem)
    return run


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``section.key: old -> new`` for every semantic key that differs between two resolved configs."""
    # Replicas that train apart each learn something of their own.
    apart = any("outer" in config and config["outer"]["every"] > 1 for config in (old, new))
    free = FREE_ON_RESUME - {"mesh.replica"} if apart else FREE_ON_RESUME
    lines = []
    for section in sorted(set(old) | set(new)):
        before, after = (dict(config[section]) if section in config else {} for config in (old, new))
        for key in sorted(set(before) | set(after)):
            name = f"{section}.{key}"
            a, b = before[key] if key in before else "absent", after[key] if key in after else "absent"
            same = list(a) == list(b) if isinstance(a, list | tuple) and isinstance(b, list | tuple) else a == b
            if not same and name not in free:
                lines.append(f"{name}: {a} -> {b}")
    return lines


def _reject_unknown(prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"legal keys: {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}: unknown config key; {hint}")


def _section(name: str, cls: type, given: Mapping[str, Any]) -> Any:
    fields = {key_of(field): field for field in _hints(cls)}
    _reject_unknown(f"{name}.", given, fields)
    values = {}
    for (key, own), kind in zip(fields.items(), _hints(cls).values(), strict=True):
        field = f"{name}.{key}"
        if key not in given or given[key] is None:
            raise ConfigError(f"{field}: no value was given; set it with --config.{field}=...")
        value = _typed(field, kind, given[key])
        if field in CHOICES and value not in CHOICES[field]:
            raise ConfigError(f"{field}={value}: not one of {', '.join(CHOICES[field])}")
        if field in RANGES:
            _check_range(field, value)
        values[own] = value
    return cls(**values)


def _typed(field: str, kind: Any, value: Any) -> Any:
    wanted = getattr(kind, "__name__", str(kind))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        # What no float holds is out of every range.
        return float(value) if abs(value) < 10**300 else math.inf if value > 0 else -math.inf
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (int, float, str, bool):
        if type(value) is not kind:
            raise ConfigError(f"{field}={_shown(value)}: must be of type {wanted}, not {type(value).__name__}")
        if kind is str and "\0" in value:
            raise ConfigError(f"{field}={value}: must not hold the character 0")
        return value
    if not isinstance(value, tuple | list):
        raise ConfigError(f"{field}={_shown(value)}: must be a tuple")
    element = str if kind == tuple[str, ...] else int
    if element is int and len(value) != 2:
        raise ConfigError(f"{field}={_shown(value)}: must be two integers (rows, columns)")
    for item in value:
        if type(item) is not element:
            raise ConfigError(f"{field}={_shown(value)}: every element must be of type {element.__name__}")
    return tuple(value)


def check_argument(name: str, value: Any, field: str) -> None:
    """Hold an argument of a public function against the type and the range of a setting.

    Args:
      name: of the argument, for the error.
      value: a number, or a scalar of NumPy or JAX.
      field: the setting, ``section.key``.

    Raises:
      ConfigError: a config would refuse the value too.
    """
    section, _, key = field.partition(".")
    kinds = _hints(_hints(RunConfig)[section])
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    _check_range(field, _typed(name, kinds[key], plain), name)


def _check_range(field: str, value: Any, name: str | None = None) -> None:
    low, high, low_legal, high_legal = RANGES[field]
    for number in value if isinstance(value, tuple) else (value,):
        inside = (number >= low if low_legal else number > low) and (number <= high if high_legal else number < high)
        if not inside:
            interval = f"{'[' if low_legal else '('}{_shown(low)}, {_shown(high)}{']' if high_legal else ')'}"
            raise ConfigError(f"{name or field}={_shown(value)}: must be in {interval}")
        if isinstance(number, float) and 0 < abs(number) < _SMALLEST:
            raise ConfigError(f"{name or field}={number:g}: is 0 in float32; write 0, or at least {_SMALLEST:.3g}")


def _shown(value: Any) -> str:
    """A value in an error; of an integer that no machine word holds the number of its digits."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of about {value.bit_length() * 0.30103:.0f} digits"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return str(value) if isinstance(value, int) else repr(value)
