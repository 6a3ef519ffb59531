"""Settings that are legal alone and cannot work together. Read by ``config.py`` only.

Each function yields one line a problem: the field, its value and the fix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from sparsejax.sections import ModelConfig, RunConfig, TopologyConfig

_NEED_SCORES = ("gradient", "gradient_sum", "momentum", "momentum_neuron", "mix")
_REMEMBER_SCORES = ("gradient_sum", "momentum", "momentum_neuron")


def problems(run: RunConfig) -> Iterator[str]:
    """Everything that cannot work in this run, the first thing to mend first."""
    yield from _model(run.model)
    yield from _blocks(run.model, run.topology)
    yield from _rewiring(run.topology)
    yield from _schedules(run.topology)
    yield from _storage(run)
    yield from _init(run)
    yield from _lengths(run)
    yield from _outer(run)


# Tokens of one batch: 1 GiB of ids.
_MAX_BATCH_TOKENS = 2**28


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _model(model: ModelConfig) -> Iterator[str]:
    if model.heads % model.kv_heads:
        yield f"model.kv_heads={model.kv_heads}: must divide model.heads={model.heads}; legal: {_divisors(model.heads)}"
    if model.head_dim % 2:
        yield f"model.head_dim={model.head_dim}: must be even, rotary embeddings pair its halves"
    if model.rope_scaling == "llama3" and model.rope_high_frequency <= model.rope_low_frequency:
        yield (
            f"model.rope_high_frequency={model.rope_high_frequency:g}: must be above "
            f"model.rope_low_frequency={model.rope_low_frequency:g} under rope_scaling=llama3"
        )


def _blocks(model: ModelConfig, topology: TopologyConfig) -> Iterator[str]:
    for rule in topology.rules:
        if not _readable_rule(rule):
            yield f"topology.rules={rule!r}: must read '<regex>=<density in (0, 1]>'"
    # Without blocks there is nothing to divide.
    if topology.storage != "packed" or (topology.density == 1.0 and not topology.rules):
        return
    hidden = ("model.hidden", model.hidden)
    queries = ("model.heads*head_dim", model.heads * model.head_dim)
    keys = ("model.kv_heads*head_dim", model.kv_heads * model.head_dim)
    (bk, bn) = topology.block
    # Of W [K, N], bk cuts K and bn cuts N. The MLP width is rounded up, so it always fits.
    for side, (name, width) in ((bk, hidden), (bk, queries), (bn, hidden), (bn, queries), (bn, keys)):
        if width % side:
            yield (
                f"topology.block={topology.block}: {side} does not divide {name}={width}; "
                f"legal sides: {[d for d in _divisors(width) if d <= 256]}"
            )
    # Shares cut the rows of o and the columns of q, k, v; nothing cuts the hidden width.
    for side, (name, width) in ((bk, queries), (bn, queries), (bn, keys)):
        if (width // side) % topology.shards:
            legal = [d for d in _divisors(width // side) if d <= 64]
            yield (
                f"topology.shards={topology.shards}: does not divide the {width // side} blocks of {side} "
                f"along {name}={width}; legal: {legal}"
            )
    for rule in topology.rules:
        if not _readable_rule(rule):
            yield f"topology.rules={rule!r}: must read '<regex>=<density in (0, 1]>'"


def _readable_rule(rule: str) -> bool:
    pattern, separator, density = rule.rpartition("=")
    try:
        re.compile(pattern)
        return bool(separator) and 0.0 < float(density) <= 1.0
    except (ValueError, re.error, OverflowError, RecursionError):
        return False


def _rewiring(topology: TopologyConfig) -> Iterator[str]:
    drop, grow = topology.drop, topology.grow
    decays = topology.density_schedule != "constant"
    if decays and (drop != "magnitude" or grow != "none"):
        yield (
            f"topology.density_schedule={topology.density_schedule}, topology.drop={drop}, topology.grow={grow}: "
            "a falling density only drops, by magnitude; set drop=magnitude and grow=none"
        )
    elif not decays and (drop == "none") != (grow == "none"):
        yield (
            f"topology.drop={drop}, topology.grow={grow}: set both to rewire, or both to 'none' for a fixed topology"
        )
    if topology.balance == "column" and (decays or drop == "global_magnitude"):
        field = "density_schedule" if decays else "drop"
        yield (
            f"topology.balance=column, topology.{field}={getattr(topology, field)}: counts that move cannot be "
            "balanced; set balance=none"
        )
    if topology.regrow_value == "keep" and not topology.regrow_dropped:
        yield "topology.regrow_value=keep: keeps weights dropped just now, which needs topology.regrow_dropped=True"
    if topology.fade_steps >= topology.every:
        yield f"topology.fade_steps={topology.fade_steps}: must be below topology.every={topology.every}"
    if topology.fade_steps and drop not in ("none", "magnitude"):
        yield f"topology.fade_steps={topology.fade_steps}: only drop=magnitude fades out, not drop={drop}; set it to 0"
    if grow in _NEED_SCORES and topology.score_steps > topology.every:
        yield f"topology.score_steps={topology.score_steps}: must be at most topology.every={topology.every}"


def _schedules(topology: TopologyConfig) -> Iterator[str]:
    if topology.rate_end > topology.rate:
        yield f"topology.rate_end={topology.rate_end:g}: must not exceed topology.rate={topology.rate:g}"
    if topology.density_schedule != "constant" and topology.density_start < topology.density:
        yield (
            f"topology.density_start={topology.density_start:g}: must be at least "
            f"topology.density={topology.density:g}, density only falls"
        )
    if topology.flow_end < topology.flow_start:
        yield (f"topology.flow_end={topology.flow_end:g}: must be at least topology.flow_start={topology.flow_start:g}")


def _storage(run: RunConfig) -> Iterator[str]:
    topology, method, storage = run.topology, run.topology.method, run.topology.storage
    for name in ("dense", "galore"):
        if name in (method, run.optim.form) and topology.density != 1.0:
            yield f"topology.density={topology.density:g}: the method '{name}' needs density 1"
    sparse_rules = [r for r in topology.rules if _readable_rule(r) and float(r.rpartition("=")[2]) != 1.0]
    if run.optim.form == "galore" and sparse_rules:
        yield f"topology.rules={sparse_rules[0]!r}: optim.form=galore projects dense weights; leave the rule out"
    needs = {"sr_ste": "dense_master", "monarch": "monarch"}
    if method in needs and storage != needs[method]:
        yield f"topology.storage={storage}: the method '{method}' needs storage={needs[method]}"
    if storage != "packed" and (topology.drop != "none" or topology.grow != "none"):
        yield (
            f"topology.storage={storage}, topology.drop={topology.drop}, topology.grow={topology.grow}: "
            "only packed blocks are rewired; set drop=none and grow=none"
        )
    if topology.flow != "none" and storage != "dense_master":
        yield f"topology.flow={topology.flow}: needs topology.storage=dense_master, not {storage}"
    if storage == "dense_master":
        yield from _nm(run.model, topology)


def _nm(model: ModelConfig, topology: TopologyConfig) -> Iterator[str]:
    (used, group) = topology.nm
    if not 1 <= used <= group:
        yield f"topology.nm={topology.nm}: must be N of M with 1 <= N <= M"
    elif abs(topology.density - used / group) > 1e-9:
        yield (
            f"topology.density={topology.density:g}: topology.nm={topology.nm} has density {used / group:g}; "
            "set both alike"
        )
    elif model.hidden % group or (model.heads * model.head_dim) % group:
        yield f"topology.nm={topology.nm}: groups of {group} inputs do not divide model.hidden={model.hidden}"


def _init(run: RunConfig) -> Iterator[str]:
    init, topology = run.init, run.topology
    if not init.from_:
        for field in ("distill_weight", "feature_weight"):
            if getattr(init, field) > 0:
                yield f"init.{field}={getattr(init, field):g}: needs a dense start to learn from; set init.from"
        return
    if topology.storage == "monarch":
        yield f"init.from={init.from_}: a dense weight has no two Monarch factors; use topology.storage=packed"
    if not init.distills:
        return
    if run.outer.every > 1:
        yield f"outer.every={run.outer.every}: replicas that train apart have no teacher; set init.distill_weight=0"
    if topology.grow in _NEED_SCORES or topology.drop == "taylor":
        field = "drop" if topology.drop == "taylor" else "grow"
        yield (
            f"topology.{field}={getattr(topology, field)}: looks at gradients of the text's loss, and a distilled run "
            "has another; use drop=magnitude and grow=random, or set init.distill_weight=0 and init.feature_weight=0"
        )


def _lengths(run: RunConfig) -> Iterator[str]:
    train = run.train
    if (train.steps > 0) == (train.epochs > 0):
        yield f"train.steps={train.steps}, train.epochs={train.epochs}: set exactly one of them, the other to 0"
    if train.batch_size * run.data.sequence_length > _MAX_BATCH_TOKENS:
        yield (
            f"train.batch_size={train.batch_size}: a batch of rows of data.sequence_length={run.data.sequence_length} "
            f"has more than {_MAX_BATCH_TOKENS} tokens; lower one of them"
        )
    if train.batch_size % train.microbatches:
        yield (
            f"train.microbatches={train.microbatches}: must divide train.batch_size={train.batch_size}; "
            f"legal: {_divisors(train.batch_size)}"
        )
    if run.data.source != "stdlib" and not run.data.path:
        yield f"data.path is empty: data.source={run.data.source} needs the files to read"
    if run.data.source == "stdlib" and run.data.path:
        yield f"data.path={run.data.path}: data.source=stdlib reads no files; set data.source to their format"
    if run.data.source == "tokens":
        if run.data.validation_path:
            yield f"data.validation_path={run.data.validation_path}: a token set has its own; leave it empty"
    elif run.data.tokenizer in ("sentencepiece", "hf") and not run.data.tokenizer_path:
        yield f"data.tokenizer_path is empty: data.tokenizer={run.data.tokenizer} needs a file"


def _outer(run: RunConfig) -> Iterator[str]:
    """Replicas that train apart have one topology, which changes where they meet and from what they agree on."""
    outer, topology = run.outer, run.topology
    if outer.bits not in (2, 32):
        yield f"outer.bits={outer.bits}: must be 2 or 32"
    if outer.every == 1:
        return
    if run.mesh.replica == 1:
        yield f"outer.every={outer.every}: needs replicas that meet; set mesh.replica, or outer.every=1"
    if topology.drop != "none" and topology.every % outer.every:
        yield (
            f"topology.every={topology.every}: must be a multiple of outer.every={outer.every}, replicas rewire only "
            "where they meet"
        )
    if topology.fade_steps:
        yield f"topology.fade_steps={topology.fade_steps}: replicas that train apart cannot fade; set it to 0"
    if topology.grow in _REMEMBER_SCORES:
        yield (
            f"topology.grow={topology.grow}: remembers gradients of steps that replicas take apart; use random, "
            "gradient or mix, or outer.every=1"
        )
    if run.optim.ema_decay:
        yield (
            f"optim.ema_decay={run.optim.ema_decay:g}: replicas that train apart have other weights each between "
            "meetings; set it to 0, or outer.every=1"
        )
    if run.optim.form == "galore":
        yield "optim.form=galore: replicas would have other projections each; use outer.every=1"
