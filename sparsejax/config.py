"""The configuration of a run: one frozen dataclass per room, resolved and checked before anything compiles.

Outside the package a run is an ``ml_collections.ConfigDict`` (``configs/base.py`` holds every default,
its meaning, unit and legal values, and nothing else holds a default). Inside it is a ``RunConfig``.
``resolve`` is the only way from one to the other: an unknown key, a wrong type, an illegal value or an
impossible combination raises ``ConfigError``, whose text is one line naming the field, the value and the fix.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, get_type_hints

from sparsejax.combinations import problems
from sparsejax.legal_values import CHOICES, FREE_ON_RESUME, RANGES


class ConfigError(ValueError):
    """A value the user gave that cannot work; ``str(error)`` is the one line to show (exit code 2)."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the LLaMA decoder. Fields: see ``configs/base.py``."""

    size: str
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    rope_base: float
    rope_scaling: str
    rope_factor: float
    rope_low_frequency: float
    rope_high_frequency: float
    rope_original_length: int
    rms_eps: float
    tied_head: bool
    init_std: float
    init: str
    compute_dtype: str
    remat: str
    implementation: str


@dataclasses.dataclass(frozen=True)
class TopologyConfig:
    """Which blocks exist and how that changes. Fields: see ``configs/base.py``."""

    density: float
    block: tuple[int, int]
    shards: int
    balance: str
    allocation: str
    attention_mlp_ratio: float
    rules: tuple[str, ...]
    method: str
    drop: str
    grow: str
    every: int
    rate: float
    rate_end: float
    rate_schedule: str
    stop_fraction: float
    regrow_dropped: bool
    regrow_value: str
    drop_threshold: float
    temperature: float
    temperature_end: float
    fade_steps: int
    mix: float
    score_steps: int
    score_decay: float
    capacity_slack: float
    density_start: float
    density_schedule: str
    storage: str
    nm: tuple[int, int]
    ste_decay: float
    flow: str
    flow_start: float
    flow_end: float


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Sparse Adam and the learning-rate shape. Fields: see ``configs/base.py``."""

    form: str
    lr: float
    schedule: str
    warmup_fraction: float
    min_ratio: float
    decay_fraction: float
    restarts: int
    b1: float
    b2: float
    eps: float
    density_exponent: float
    ramp: int
    weight_decay: float
    clip: float
    moment_dtype: str
    galore_rank: int
    galore_every: int


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Text, tokenizer and the unique-token budget. Fields: see ``configs/base.py``."""

    source: str
    path: str
    validation_path: str
    validation_fraction: float
    text_field: str
    tokenizer: str
    tokenizer_path: str
    vocab_size: int
    sequence_length: int
    unique_tokens: int
    reshuffle_each_epoch: bool
    cache_dir: str


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batch and bookkeeping of a run. Fields: see ``configs/base.py``."""

    steps: int
    epochs: int
    batch_size: int
    microbatches: int
    z_loss: float
    nonfinite_limit: int
    log_every: int
    eval_every: int
    eval_tokens: int
    checkpoint_every: int
    keep_last: int
    keep_every: int
    profile_start: int
    profile_steps: int
    compile_cache: str


@dataclasses.dataclass(frozen=True)
class SeedConfig:
    """Independent seeds: weights, topology, data order."""

    init: int
    topology: int
    data: int


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run, one section per room."""

    model: ModelConfig
    topology: TopologyConfig
    optim: OptimConfig
    data: DataConfig
    train: TrainConfig
    seeds: SeedConfig

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, ready for JSON (tuples become lists on the way out)."""
        return dataclasses.asdict(self)


def resolve(config: Mapping[str, Any]) -> RunConfig:
    """Turn a nested mapping into a checked ``RunConfig``; raises ``ConfigError`` on the first problem."""
    sections = {field.name: field.type for field in dataclasses.fields(RunConfig)}
    _reject_unknown("", config, sections)
    hints = get_type_hints(RunConfig)
    built = {}
    for name in sections:
        if name not in config:
            raise ConfigError(f"{name}: this section is missing; start from configs/base.py")
        built[name] = _section(name, hints[name], config[name])
    run = RunConfig(**built)
    for problem in problems(run):
        raise ConfigError(problem)
    return run


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``section.key: old -> new`` for every semantic key that differs between two resolved configs."""
    lines = []
    for section in sorted(set(old) | set(new)):
        before, after = (dict(config[section]) if section in config else {} for config in (old, new))
        for key in sorted(set(before) | set(after)):
            name = f"{section}.{key}"
            a, b = before[key] if key in before else "absent", after[key] if key in after else "absent"
            same = list(a) == list(b) if isinstance(a, list | tuple) and isinstance(b, list | tuple) else a == b
            if not same and name not in FREE_ON_RESUME:
                lines.append(f"{name}: {a} -> {b}")
    return lines


def _reject_unknown(prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"legal keys: {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}: unknown config key; {hint}")


def _section(name: str, cls: type, given: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    _reject_unknown(f"{name}.", given, hints)
    values = {}
    for key, kind in hints.items():
        field = f"{name}.{key}"
        if key not in given or given[key] is None:
            raise ConfigError(f"{field}: no value was given; set it with --config.{field}=...")
        value = _typed(field, kind, given[key])
        if field in CHOICES and value not in CHOICES[field]:
            raise ConfigError(f"{field}={value}: not one of {', '.join(CHOICES[field])}")
        if field in RANGES:
            _check_range(field, value)
        values[key] = value
    return cls(**values)


def _typed(field: str, kind: Any, value: Any) -> Any:
    wanted = getattr(kind, "__name__", str(kind))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (int, float, str, bool):
        if type(value) is not kind:
            raise ConfigError(f"{field}={value!r}: must be of type {wanted}, not {type(value).__name__}")
        return value
    if not isinstance(value, tuple | list):
        raise ConfigError(f"{field}={value!r}: must be a tuple")
    element = str if kind == tuple[str, ...] else int
    if element is int and len(value) != 2:
        raise ConfigError(f"{field}={tuple(value)}: must be two integers (rows, columns)")
    for item in value:
        if type(item) is not element:
            raise ConfigError(f"{field}={tuple(value)!r}: every element must be of type {element.__name__}")
    return tuple(value)


def _check_range(field: str, value: float) -> None:
    low, high, low_legal, high_legal = RANGES[field]
    inside = (value >= low if low_legal else value > low) and (value <= high if high_legal else value < high)
    if not inside:
        interval = f"{'[' if low_legal else '('}{low:g}, {high:g}{']' if high_legal else ')'}"
        raise ConfigError(f"{field}={value:g}: must be in {interval}")
