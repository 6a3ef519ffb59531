"""The sections of a run's configuration, one frozen dataclass a room, without defaults.

Fields: their meaning, unit, legal values and defaults are in ``configs/base.py``. Built by ``config.resolve`` only.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def key_of(field: str) -> str:
    """The key of a field in a configuration: the underscore behind a word that Python keeps for itself is left out."""
    return field.removesuffix("_")


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
    attention: str


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
    vocabulary_lr_ratio: float
    ramp: int
    weight_decay: float
    clip: float
    moment_dtype: str
    ema_decay: float
    galore_rank: int
    galore_every: int


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Where the first weights come from. Fields: see ``configs/base.py``."""

    from_: str
    criterion: str
    calibration_tokens: int
    same_tokenizer: bool
    distill_weight: float
    distill_temperature: float
    feature_weight: float

    @property
    def distills(self) -> bool:
        """Whether the dense start stays beside the run as its teacher."""
        return self.distill_weight > 0 or self.feature_weight > 0


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
    loss_chunk: int
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
class MeshConfig:
    """How devices share the work. Fields: see ``configs/base.py``."""

    replica: int
    fsdp: int
    tensor: int
    sequence: bool


@dataclasses.dataclass(frozen=True)
class OuterConfig:
    """How replicas that train apart meet. Fields: see ``configs/base.py``."""

    every: int
    top: float
    chunk: int
    bits: int
    beta: float
    mean: str
    lr: float


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
    init: InitConfig
    data: DataConfig
    train: TrainConfig
    mesh: MeshConfig
    outer: OuterConfig
    seeds: SeedConfig

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, ready for JSON (tuples become lists on the way out)."""
        return {
            section: {key_of(field): value for field, value in values.items()}
            for section, values in dataclasses.asdict(self).items()
        }
