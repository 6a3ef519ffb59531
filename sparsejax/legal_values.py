"""Legal values of the settings, and which of them a resumed run may change. Read by ``config.py`` only.

Meaning and unit of every setting are in ``configs/base.py``; a key is ``section.field``.
"""

from __future__ import annotations

CHOICES: dict[str, tuple[str, ...]] = {
    "model.rope_scaling": ("none", "linear", "llama3"),
    "model.init": ("normal", "density_aware"),
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full", "dots"),
    "model.implementation": ("auto", "reference", "transient", "xla", "bcoo"),
    "topology.balance": ("none", "column"),
    "topology.allocation": ("uniform", "erk"),
    "topology.method": ("dense", "static", "set", "smet", "smet_code"),
    "topology.drop": ("none", "magnitude"),
    "topology.grow": ("none", "random"),
    "topology.rate_schedule": ("cosine", "linear", "constant", "wsd"),
    "optim.form": ("smet", "smet_code", "naive"),
    "optim.schedule": ("cosine", "linear", "wsd", "constant", "cosine_restarts"),
    "optim.moment_dtype": ("float32", "bfloat16"),
    "data.source": ("stdlib", "text", "jsonl", "parquet", "arrayrecord", "hf"),
    "data.tokenizer": ("byte", "bpe", "sentencepiece", "hf"),
}

# (low, high, low is legal, high is legal)
RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "model.hidden": (1, float("inf"), True, False),
    "model.mlp": (1, float("inf"), True, False),
    "model.heads": (1, float("inf"), True, False),
    "model.kv_heads": (1, float("inf"), True, False),
    "model.head_dim": (2, float("inf"), True, False),
    "model.layers": (1, float("inf"), True, False),
    "model.rope_base": (1, float("inf"), False, False),
    "model.rope_factor": (1, float("inf"), True, False),
    "model.rms_eps": (0, 1, False, False),
    "model.init_std": (0, float("inf"), False, False),
    "topology.density": (0, 1, False, True),
    "topology.shards": (1, float("inf"), True, False),
    "topology.attention_mlp_ratio": (0, float("inf"), False, False),
    "topology.every": (1, float("inf"), True, False),
    "topology.rate": (0, 1, True, False),
    "topology.rate_end": (0, 1, True, False),
    "topology.stop_fraction": (0, 1, True, True),
    "optim.lr": (0, float("inf"), False, False),
    "optim.warmup_fraction": (0, 1, True, True),
    "optim.min_ratio": (0, 1, True, True),
    "optim.decay_fraction": (0, 1, True, True),
    "optim.restarts": (1, float("inf"), True, False),
    "optim.b1": (0, 1, True, False),
    "optim.b2": (0, 1, True, False),
    "optim.eps": (0, float("inf"), False, False),
    "optim.density_exponent": (0, float("inf"), True, False),
    "optim.ramp": (1, float("inf"), True, False),
    "optim.weight_decay": (0, float("inf"), True, False),
    "optim.clip": (0, float("inf"), True, False),
    "data.validation_fraction": (0, 1, False, False),
    "data.vocab_size": (0, float("inf"), True, False),
    "data.sequence_length": (2, float("inf"), True, False),
    "data.unique_tokens": (0, float("inf"), True, False),
    "train.steps": (0, float("inf"), True, False),
    "train.epochs": (0, float("inf"), True, False),
    "train.batch_size": (1, float("inf"), True, False),
    "train.microbatches": (1, float("inf"), True, False),
    "train.z_loss": (0, float("inf"), True, False),
    "train.nonfinite_limit": (1, float("inf"), True, False),
    "train.log_every": (1, float("inf"), True, False),
    "train.eval_every": (0, float("inf"), True, False),
    "train.eval_tokens": (1, float("inf"), True, False),
    "train.checkpoint_every": (1, float("inf"), True, False),
    "train.keep_last": (1, float("inf"), True, False),
    "train.keep_every": (0, float("inf"), True, False),
    "train.profile_start": (0, float("inf"), True, False),
    "train.profile_steps": (0, float("inf"), True, False),
}

# A resumed run may change these; every other key decides what is learned, and must stay (design D9).
FREE_ON_RESUME: frozenset[str] = frozenset(
    {
        "model.implementation",
        "model.remat",
        "data.path",
        "data.validation_path",
        "data.cache_dir",
        "data.tokenizer_path",
        "train.nonfinite_limit",
        "train.log_every",
        "train.eval_every",
        "train.eval_tokens",
        "train.checkpoint_every",
        "train.keep_last",
        "train.keep_every",
        "train.profile_start",
        "train.profile_steps",
        "train.compile_cache",
    }
)
