"""The recipes that the whole-model benchmarks measure: published sizes without data, in the papers' setting."""

from __future__ import annotations

from sparsejax.config import (
    ConfigError,
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
)
from sparsejax.hardware.target import Target
from sparsejax.models.sizes import SIZES, Size
from sparsejax.training.recipe import Recipe, build_recipe

# Of the papers: the vocabulary of T5.
VOCABULARY = 32_000


def recipe(
    size: str,
    density: float,
    block: int,
    balance: str,
    *,
    rows: int,
    length: int,
    compute_dtype: str,
    remat: str,
    target: Target,
    grow: str = "random",
    layers: int | None = None,
    implementation: str = "auto",
) -> Recipe:
    """SMET on a published size; ``density`` 1 is the dense twin with the widths that ``block`` asks for.

    With ``layers`` the model has so many instead of the published number.

    Raises:
      ConfigError: the block does not divide the hidden width, or the run is none that can be trained.
    """
    shape = SIZES[size]
    _check_block(shape, block)
    model = ModelConfig(
        size=size,
        hidden=shape.hidden,
        mlp=shape.mlp,
        heads=shape.heads,
        kv_heads=shape.heads,
        head_dim=shape.hidden // shape.heads,
        layers=shape.layers if layers is None else layers,
        rope_base=1e4,
        rope_scaling="none",
        rope_factor=1.0,
        rope_low_frequency=1.0,
        rope_high_frequency=4.0,
        rope_original_length=8192,
        rms_eps=1e-6,
        tied_head=False,
        init_std=0.02,
        init="normal",
        compute_dtype=compute_dtype,
        remat=remat,
        implementation=implementation,
        attention="auto",
    )
    topology = _topology(density, block, balance, grow)
    run = RunConfig(
        model=model,
        topology=topology,
        optim=_OPTIM,
        init=InitConfig("", "magnitude", 1, True, 0.0, 1.0, 0.0),
        data=_data(length),
        train=_train(rows),
        mesh=MeshConfig(replica=1, fsdp=1, tensor=1, sequence=False),
        outer=OuterConfig(every=1, top=1.0, chunk=4096, bits=32, beta=1.0, mean="replicas", lr=1.0),
        seeds=SeedConfig(0, 0, 0),
    )
    return build_recipe(run, steps=run.train.steps, vocab_size=VOCABULARY, start_id=1, target=target)


def _check_block(shape: Size, block: int) -> None:
    if shape.hidden % block:
        raise ConfigError(f"--block={block}: must divide {shape.hidden}, the hidden width of {shape.name}")


def _topology(density: float, block: int, balance: str, grow: str) -> TopologyConfig:
    dense = density == 1.0
    return TopologyConfig(
        density=density,
        block=(block, block),
        shards=1,
        balance=balance,
        allocation="uniform",
        attention_mlp_ratio=1.0,
        rules=(),
        method="dense" if dense else "smet",
        drop="none" if dense else "magnitude",
        grow="none" if dense else grow,
        every=100,
        rate=0.3,
        rate_end=0.005,
        rate_schedule="cosine",
        stop_fraction=1.0,
        regrow_dropped=False,
        regrow_value="zero",
        drop_threshold=0.0,
        temperature=1.0,
        temperature_end=3.0,
        fade_steps=0,
        mix=0.5,
        score_steps=1,
        score_decay=0.9,
        capacity_slack=1.5,
        density_start=0.999,
        density_schedule="constant",
        storage="packed",
        nm=(2, 4),
        ste_decay=0.0,
        flow="none",
        flow_start=0.0,
        flow_end=0.0,
    )


_OPTIM = OptimConfig(
    form="smet",
    lr=1e-3,
    schedule="cosine",
    warmup_fraction=0.1,
    min_ratio=0.1,
    decay_fraction=0.1,
    restarts=1,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    density_exponent=0.5,
    vocabulary_lr_ratio=1.0,
    ramp=100,
    weight_decay=0.0,
    clip=1.0,
    moment_dtype="float32",
    ema_decay=0.0,
    galore_rank=64,
    galore_every=200,
)


def _data(length: int) -> DataConfig:
    return DataConfig(
        source="text",
        path="none: benchmarks draw tokens at random",
        validation_path="",
        validation_fraction=0.05,
        text_field="text",
        tokenizer="byte",
        tokenizer_path="",
        vocab_size=VOCABULARY,
        sequence_length=length,
        unique_tokens=0,
        reshuffle_each_epoch=True,
        cache_dir="",
    )


def _train(rows: int) -> TrainConfig:
    return TrainConfig(
        steps=10_000,
        epochs=0,
        batch_size=rows,
        microbatches=1,
        z_loss=0.0,
        loss_chunk=8192,
        nonfinite_limit=10,
        log_every=10,
        eval_every=0,
        eval_tokens=1,
        checkpoint_every=1000,
        keep_last=1,
        keep_every=0,
        profile_start=0,
        profile_steps=0,
        compile_cache="",
    )
