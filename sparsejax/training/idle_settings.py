"""Settings that have no effect in a run, found before it starts, so that they are said and not found out later.

``SETTINGS`` has every setting that needs another one to matter. A setting is idle if what it needs is missing and its
value is neither that of ``configs/base.py`` nor that of the method's row, so that someone asked for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from sparsejax.config import ConfigError, RunConfig
from sparsejax.models.weight_table import SparseWeight, mlp_width, weight_table
from sparsejax.topology.density_path import decays
from sparsejax.topology.growth import REMEMBERING
from sparsejax.topology.methods import METHODS
from sparsejax.topology.schedules import last_rewiring_step


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run and how long it is; ``steps`` and ``epochs`` are infinite where only the data tells."""

    run: RunConfig
    steps: float
    epochs: float

    @cached_property
    def weights(self) -> Mapping[str, SparseWeight]:
        """The weights that the run starts with."""
        return self.counts(self.run, 0)

    def counts(self, run: RunConfig, step: int) -> Mapping[str, SparseWeight]:
        """The weights of a run as long as this one, after ``step``."""
        return weight_table(run.model, run.topology, step, self.length)

    @property
    def length(self) -> int:
        """Steps, more than any run has where only the data tells."""
        return 10**9 if math.isinf(self.steps) else int(self.steps)

    @property
    def sparse(self) -> bool:
        """Whether any weight is not a plain dense one."""
        return not all(weight.dense for weight in self.weights.values())

    @property
    def blocks(self) -> bool:
        """Whether any weight is stored as blocks."""
        return any(weight.packed for weight in self.weights.values())

    @property
    def meant_to_rewire(self) -> bool:
        """Whether the settings ask for a topology that changes."""
        return self.blocks and self.run.topology.drop != "none"

    @property
    def rewires(self) -> bool:
        """Whether the topology changes at least once."""
        topology = self.run.topology
        return self.meant_to_rewire and last_rewiring_step(self.length, topology.stop_fraction) >= topology.every


# Why a setting does nothing in a run; None where it matters.
Reason = Callable[[RunFacts], str | None]


def _needs(field: str, *values: Any) -> Reason:
    """The setting matters where another one has one of these values."""

    def reason(facts: RunFacts) -> str | None:
        value = value_of(facts.run, field)
        return None if value in values else f"{field}={shown(value)}"

    return reason


def _all(*reasons: Reason) -> Reason:
    """The first reason of several; the setting matters if there is none."""
    return lambda facts: next(filter(None, (reason(facts) for reason in reasons)), None)


def _blocks(facts: RunFacts) -> str | None:
    return None if facts.blocks else "no weight is stored as blocks"


def _sparse(facts: RunFacts) -> str | None:
    return None if facts.sparse else "no weight is sparse"


def _masters(facts: RunFacts) -> str | None:
    storage = facts.run.topology.storage
    return _sparse(facts) if storage == "dense_master" else f"topology.storage={storage}"


def _asked(facts: RunFacts) -> str | None:
    return _blocks(facts) or (None if facts.meant_to_rewire else f"topology.drop={facts.run.topology.drop}")


def _rewires(facts: RunFacts) -> str | None:
    return _asked(facts) or (None if facts.rewires else "nothing is ever rewired")


def _grows(facts: RunFacts) -> str | None:
    schedule = facts.run.topology.density_schedule
    return _rewires(facts) or (f"topology.density_schedule={schedule}" if decays(facts.run.topology) else None)


def _falls(facts: RunFacts) -> str | None:
    return _needs("topology.density_schedule", "cosine", "linear", "cubic")(facts) or _rewires(facts)


def moves_counts(**changes: Any) -> Reason:
    """The setting matters if the weights would have other counts under ``changes`` of the topology."""

    def reason(facts: RunFacts) -> str | None:
        try:
            runs = facts.run, _with_topology(facts.run, changes)
            first, last = ([facts.counts(run, step) for run in runs] for step in (0, facts.length))
        except ConfigError:
            return None
        return "no weight has another count for it" if first[0] == first[1] and last[0] == last[1] else None

    return reason


def _blocks_or_width(facts: RunFacts) -> str | None:
    """Blocks and shares also round the width of the MLP, for the twins of sparse runs."""
    model, topology = facts.run.model, facts.run.topology
    return None if mlp_width(model, topology) != model.mlp or facts.run.mesh.tensor > 1 else _blocks(facts)


def _has_to_fall(facts: RunFacts) -> str | None:
    topology = facts.run.topology
    return "topology.density_start is topology.density" if topology.density_start == topology.density else None


def _form(facts: RunFacts) -> str | None:
    return None if facts.run.optim.form in ("smet_code", "galore") else _grows(facts)


def _ramp(facts: RunFacts) -> str | None:
    form = facts.run.optim.form
    return None if form == "smet_code" else _grows(facts) or (None if form == "smet" else f"optim.form={form}")


def _warms_up(facts: RunFacts) -> str | None:
    steps = facts.run.optim.warmup_fraction * facts.steps
    return "a warm-up of one step is none" if facts.run.optim.warmup_fraction > 0 and steps <= 1.5 else None


def _decays_rate(facts: RunFacts) -> str | None:
    optim = facts.run.optim
    warmup = 0.0 if math.isinf(facts.steps) else round(optim.warmup_fraction * facts.steps)
    return "the warm-up lasts for the whole run" if optim.warmup_fraction == 1.0 or warmup >= facts.steps else None


def _at_most_steps(field: str, *, inclusive: bool) -> Reason:
    """The setting matters if its number of steps is below that of the run, or equal where ``inclusive``."""

    def reason(facts: RunFacts) -> str | None:
        value = value_of(facts.run, field)
        inside = value <= facts.steps if inclusive else value < facts.steps
        return None if inside else f"the run has {facts.steps:.0f} steps"

    return reason


def _keeps(facts: RunFacts) -> str | None:
    train = facts.run.train
    if train.keep_every == 0 or math.isinf(facts.steps):
        return None
    kept = math.lcm(train.keep_every, train.checkpoint_every) <= facts.steps or facts.steps % train.keep_every == 0
    return None if kept else "no checkpoint is saved at a multiple of it"


def _chunks(facts: RunFacts) -> str | None:
    train, mesh = facts.run.train, facts.run.mesh
    devices = mesh.replica * max(mesh.fsdp, 1) * mesh.tensor
    tokens = train.batch_size * facts.run.data.sequence_length // (train.microbatches * devices)
    return None if train.loss_chunk < tokens else f"a microbatch of a device has {tokens} tokens"


def _first_weights(facts: RunFacts) -> str | None:
    drawn_later = facts.run.topology.regrow_value == "init" and facts.rewires
    return "init.from gives the first weights" if facts.run.init.from_ and not drawn_later else None


def _from_dense(facts: RunFacts) -> str | None:
    return None if facts.run.init.from_ else "init.from is empty"


def _own_split(facts: RunFacts) -> str | None:
    data = facts.run.data
    return "data.validation_path has the validation text" if data.validation_path else None


def _repeats(facts: RunFacts) -> str | None:
    return None if facts.epochs > 1 else "no text is seen twice"


def _topology_seed(facts: RunFacts) -> str | None:
    return None if facts.run.seeds.topology == facts.run.seeds.init else _blocks(facts)


def _stretches(facts: RunFacts) -> str | None:
    return None if facts.run.model.rope_factor != 1.0 else "model.rope_factor=1 stretches nothing"


def _profiles(facts: RunFacts) -> str | None:
    return None if facts.run.train.profile_start < facts.steps else f"the run has {facts.steps:.0f} steps"


_SCALED = _needs("model.rope_scaling", "linear", "llama3")
_LLAMA3 = _all(_needs("model.rope_scaling", "llama3"), _stretches)
_TEXT_FILES = ("text", "jsonl", "parquet", "arrayrecord", "tfrecord", "hf")

# Every setting that needs another one to matter: its value in configs/base.py, and why it does nothing.
SETTINGS: Mapping[str, tuple[Any, Reason]] = {
    "model.rope_scaling": ("none", _stretches),
    "model.rope_factor": (1.0, _SCALED),
    "model.rope_low_frequency": (1.0, _LLAMA3),
    "model.rope_high_frequency": (4.0, _LLAMA3),
    "model.rope_original_length": (8192, _LLAMA3),
    "model.init_std": (0.02, _first_weights),
    "model.init": ("normal", _all(_blocks, _first_weights)),
    "model.implementation": ("auto", _blocks),
    "topology.block": ((16, 16), _blocks_or_width),
    "topology.shards": (1, _blocks_or_width),
    "topology.balance": ("none", _blocks),
    "topology.allocation": ("uniform", moves_counts(allocation="uniform")),
    "topology.attention_mlp_ratio": (1.0, moves_counts(attention_mlp_ratio=1.0)),
    "topology.drop": ("magnitude", _blocks),
    "topology.grow": ("random", _blocks),
    "topology.every": (100, _asked),
    "topology.rate": (0.3, _grows),
    "topology.rate_end": (0.005, _all(_grows, _needs("topology.rate_schedule", "cosine", "linear"))),
    "topology.rate_schedule": ("cosine", _grows),
    "topology.stop_fraction": (1.0, _asked),
    "topology.regrow_dropped": (False, _grows),
    "topology.regrow_value": ("zero", _grows),
    "topology.drop_threshold": (0.0, _all(_needs("topology.drop", "threshold"), _rewires)),
    "topology.temperature": (1.0, _all(_needs("topology.drop", "soft"), _rewires)),
    "topology.temperature_end": (3.0, _all(_needs("topology.drop", "soft"), _rewires)),
    "topology.fade_steps": (0, _rewires),
    "topology.mix": (0.5, _all(_needs("topology.grow", "mix"), _rewires)),
    "topology.score_steps": (1, _all(_needs("topology.grow", *REMEMBERING), _rewires)),
    "topology.score_decay": (0.9, _all(_needs("topology.grow", "momentum", "momentum_neuron"), _rewires)),
    "topology.capacity_slack": (1.5, _all(_needs("topology.drop", "global_magnitude"), _rewires)),
    "topology.density_start": (0.999, _falls),
    "topology.density_schedule": ("constant", _all(_blocks, _has_to_fall)),
    "topology.storage": ("packed", _sparse),
    "topology.nm": ((2, 4), _masters),
    "topology.ste_decay": (2e-4, _all(_masters, _needs("topology.flow", "none"))),
    "topology.flow": ("none", _masters),
    "topology.flow_start": (0.1, _all(_masters, _needs("topology.flow", "mask_linear", "mask_exp", "structure"))),
    "topology.flow_end": (0.75, _all(_masters, _needs("topology.flow", "mask_linear", "mask_exp", "structure"))),
    "optim.form": ("smet", _form),
    "optim.schedule": ("cosine", _decays_rate),
    "optim.warmup_fraction": (0.1, _warms_up),
    "optim.min_ratio": (
        0.1,
        _all(_needs("optim.schedule", "cosine", "linear", "wsd", "cosine_restarts"), _decays_rate),
    ),
    "optim.decay_fraction": (0.1, _all(_needs("optim.schedule", "wsd"), _decays_rate)),
    "optim.restarts": (1, _needs("optim.schedule", "cosine_restarts")),
    "optim.density_exponent": (0.5, _sparse),
    "optim.ramp": (100, _ramp),
    "optim.galore_rank": (64, _needs("optim.form", "galore")),
    "optim.galore_every": (200, _needs("optim.form", "galore")),
    "init.criterion": ("magnitude", _all(_from_dense, _blocks)),
    "init.calibration_tokens": (131_072, _all(_from_dense, _blocks, _needs("init.criterion", "activation"))),
    "init.same_tokenizer": (True, _from_dense),
    "init.distill_temperature": (
        1.0,
        _all(_from_dense, lambda facts: None if facts.run.init.distill_weight > 0 else "init.distill_weight=0"),
    ),
    "data.path": ("", _needs("data.source", *_TEXT_FILES, "tokens")),
    "data.validation_fraction": (0.05, _all(_needs("data.source", *_TEXT_FILES, "stdlib"), _own_split)),
    "data.text_field": ("text", _needs("data.source", *_TEXT_FILES[1:])),
    "data.tokenizer": ("bpe", _needs("data.source", *_TEXT_FILES, "stdlib")),
    "data.tokenizer_path": ("", _needs("data.tokenizer", "sentencepiece", "hf")),
    # A given tokenizer brings its own number; `check` takes this one where its file is not there.
    "data.vocab_size": (
        8192,
        _all(_needs("data.source", *_TEXT_FILES, "stdlib"), _needs("data.tokenizer", "bpe", "sentencepiece", "hf")),
    ),
    "data.reshuffle_each_epoch": (True, _repeats),
    "train.loss_chunk": (8192, _chunks),
    "train.nonfinite_limit": (10, _at_most_steps("train.nonfinite_limit", inclusive=True)),
    "train.log_every": (10, _at_most_steps("train.log_every", inclusive=True)),
    "train.eval_every": (500, _at_most_steps("train.eval_every", inclusive=False)),
    "train.checkpoint_every": (500, _at_most_steps("train.checkpoint_every", inclusive=True)),
    "train.keep_every": (0, _keeps),
    "train.profile_start": (0, lambda facts: None if facts.run.train.profile_steps else "train.profile_steps=0"),
    "train.profile_steps": (0, _profiles),
    "mesh.sequence": (False, lambda facts: None if facts.run.mesh.tensor > 1 else "mesh.tensor=1"),
    **{
        f"outer.{field}": (value, lambda facts: "outer.every=1" if facts.run.outer.every == 1 else None)
        for field, value in {
            "top": 0.03125,
            "chunk": 4096,
            "bits": 2,
            "beta": 0.95,
            "mean": "embedding_senders",
            "lr": 1.0,
        }.items()
    },
    "seeds.topology": (0, _topology_seed),
}


def facts_of(run: RunConfig, *, steps: float = 0, epochs: float = 0) -> RunFacts:
    """The facts of a run; without its length those that the configuration gives."""
    return RunFacts(run, steps or run.train.steps or math.inf, epochs or run.train.epochs or math.inf)


def idle_settings(facts: RunFacts) -> dict[str, str]:
    """Every idle setting of a run, ``section.field``, and why it is."""
    row = METHODS[facts.run.topology.method]
    of_method = {f"topology.{name}": value for name, value in row.topology.items()}
    of_method |= {f"optim.{name}": value for name, value in row.optim.items()}
    found = {}
    for field, (value, reason) in SETTINGS.items():
        rests = of_method[field] if field in of_method else value
        why = reason(facts) if value_of(facts.run, field) not in (rests, value) else None
        if why is not None:
            found[field] = why
    return found


def _with_topology(run: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    return dataclasses.replace(run, topology=dataclasses.replace(run.topology, **changes))


def value_of(run: RunConfig, field: str) -> Any:
    """The value of a setting, ``section.field``."""
    section, _, name = field.partition(".")
    return getattr(getattr(run, section), name)


def shown(value: Any) -> str:
    """A value as a flag would have it, short."""
    return f"{value:g}" if isinstance(value, float) else str(value)
