"""What ``sparsejax train`` shows when a run is finished."""

from __future__ import annotations

import jax
import numpy as np
from rich.console import Console

from sparsejax.inference.engine import Engine
from sparsejax.inference.generation import generate
from sparsejax.inference.sampling import Sampling
from sparsejax.inference.vocabulary import absent_ids
from sparsejax.training.evaluate import unigram_loss
from sparsejax.training.memory import measure
from sparsejax.training.metrics import METRICS, read_rows
from sparsejax.training.recipe import dense_twin
from sparsejax.training.report import loss_table, memory_table, plot_losses
from sparsejax.training.session import Outcome
from sparsejax.training.workdir import RunDirectory

_SAMPLE_TOKENS = 96
# Training tokens that are counted for the unigram baseline: documents are shuffled, so the first ones are a sample.
_UNIGRAM_TOKENS = 2**27
# Deterministic and not too wild: the sample is there to be looked at.
_SAMPLING = Sampling(temperature=0.8, top_k=40)


def print_summary(console: Console, workdir: RunDirectory, outcome: Outcome) -> None:
    """Losses beside the unigram baseline, measured bytes beside the dense twin, a sample, a figure, next commands."""
    if outcome.evaluation is None:
        return
    recipe, state, corpus = outcome.recipe, outcome.state, outcome.corpus
    tokens = np.asarray(corpus.validation.ids[: outcome.evaluation.tokens])
    unigram = unigram_loss(corpus.train.ids[:_UNIGRAM_TOKENS], tokens, recipe.vocab_size)
    twin = dense_twin(recipe)
    sparse_bytes, whole_bytes = measure(recipe, state)
    twin_bytes, whole_twin_bytes = measure(twin, twin.abstract)
    evaluated = [row for row in read_rows(workdir / METRICS) if row["kind"] == "eval"][-1]
    averaged = evaluated["ema_loss"] if "ema_loss" in evaluated else None
    console.print(loss_table(outcome.evaluation, unigram, averaged))
    console.print(memory_table(sparse_bytes, twin_bytes, whole_bytes, whole_twin_bytes))
    if recipe.mesh is None:
        _print_sample(console, outcome, [int(token) for token in tokens[:16]])
    figure = plot_losses(workdir, unigram)
    # On a mesh the model is cut over devices, perhaps of other processes: `generate` puts it on one.
    for line in (
        f"loss curve:  {figure}",
        f"result row:  {workdir / 'result.json'}",
        f"curves:      tensorboard --logdir {workdir.parent}",
        f"evaluate:    sparsejax evaluate --workdir={workdir}",
        f'generate:    sparsejax generate --workdir={workdir} --prompt="def "',
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _print_sample(console: Console, outcome: Outcome, prompt_tokens: list[int]) -> None:
    recipe, state, tokenizer = outcome.recipe, outcome.state, outcome.corpus.tokenizer
    prompt = tokenizer.decode(prompt_tokens)
    engine = Engine(
        recipe.run.model,
        recipe.weights,
        state.params,
        state.topology,
        devices=jax.devices()[:1],
        absent=absent_ids(tokenizer, recipe.vocab_size),
    )
    pieces = generate(
        engine,
        tokenizer,
        [prompt],
        new_tokens=_SAMPLE_TOKENS,
        length=recipe.run.data.sequence_length,
        sampling=_SAMPLING,
    )
    text = prompt + "".join(piece.text for piece in pieces)
    console.rule("sample (prompt from the validation split)")
    console.print(text, highlight=False, markup=False)
    console.rule()
