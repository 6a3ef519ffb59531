"""Tables and the figure a run shows: the density table at its start, bytes and losses at its end."""

from __future__ import annotations

from rich import box
from rich.table import Table

from sparsejax.models.accounting import StateBytes, parameters
from sparsejax.models.monarch_shape import MonarchShape
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.nm import NmPattern
from sparsejax.training.evaluate import Evaluation, bits_per_byte
from sparsejax.training.metrics import read_rows
from sparsejax.training.outer import slow_traffic
from sparsejax.training.recipe import Recipe
from sparsejax.training.rewire_plan import plan_at, rewirings
from sparsejax.training.workdir import RunDirectory


def density_table(recipe: Recipe) -> Table:
    """Every maskable weight of a layer as it will be trained; ``replaced``: blocks that the first rewiring grows."""
    run, topology = recipe.run, recipe.run.topology
    counted = [weight.counted for weight in recipe.weights.values()]
    count = parameters(recipe.shape, counted)
    width = f", MLP width {run.model.mlp} -> {recipe.shape.mlp}" if recipe.shape.mlp != run.model.mlp else ""
    table = _table(
        title=(
            f"{run.model.size}: {count.active:,} of {count.total:,} parameters active "
            f"({count.active_non_embedding:,} of {count.non_embedding:,} without embedding and head); "
            f"density {count.density:.4f} of {topology.density:g} requested{width}"
        )
    )
    apart = f"\n{slow_traffic(recipe).line(recipe.replicas, run.outer.every)}" if recipe.replicas > 1 else ""
    table.caption, table.caption_justify = f"attention: {recipe.attention}{apart}", "left"
    for name in ("weight", "shape", "block", "places", "active", "density", "replaced", "product"):
        table.add_column(name, justify="left" if name in ("weight", "product") else "right", no_wrap=True)
    first = plan_at(recipe, topology.every) if rewirings(recipe) else None
    for name, weight in recipe.weights.items():
        grid = weight.grid
        if not weight.packed:
            used, product = ("all", "dense") if weight.dense else (f"{weight.count:,}", _structure(weight))
            size, density = f"{grid.shape[0]}x{grid.shape[1]}", f"{weight.density:.4f}"
            table.add_row(name, size, "-", "-", used, density, "-", product)
            continue
        replaced = "-" if first is None else f"{grid.shards * int(first.grow[name]):,}"
        table.add_row(
            name,
            f"{grid.shape[0]}x{grid.shape[1]}",
            f"{grid.block[0]}x{grid.block[1]}",
            f"{grid.cells:,}",
            f"{weight.count:,}",
            f"{weight.density:.4f}",
            replaced,
            recipe.implementations[name],
        )
    return table


def _structure(weight: SparseWeight) -> str:
    """What is multiplied for a weight that is neither blocks nor a plain kernel."""
    if isinstance(weight.structure, NmPattern):
        return f"dense, {weight.structure.used}:{weight.structure.group}"
    assert isinstance(weight.structure, MonarchShape)
    return f"2 x {weight.structure.blocks} blocks, inner {weight.structure.inner}"


def memory_table(sparse: StateBytes, twin: StateBytes, whole: StateBytes, whole_twin: StateBytes) -> Table:
    """Measured bytes of the maskable weights and of the whole state, beside the dense twin's."""
    table = _table("bytes of training state, measured (MiB)")
    table.add_column("")
    for column in ("maskable weights", "dense twin", "ratio", "whole model", "dense twin", "ratio"):
        table.add_column(column, justify="right")
    for name in ("values", "indices", "ages", "moments", "gradients", "total"):
        cells = []
        for mine, theirs in ((sparse, twin), (whole, whole_twin)):
            a, b = getattr(mine, name), getattr(theirs, name)
            cells += [f"{a / 2**20:.3f}", f"{b / 2**20:.3f}", f"{a / b:.4f}" if b else "-"]
        table.add_row(name, *cells)
    return table


def loss_table(evaluation: Evaluation, unigram: float, averaged: float | None = None) -> Table:
    """Final validation loss, that of the averaged weights if there are any, and the unigram baseline, same tokens."""
    table, ratio = _table(f"validation, {evaluation.tokens:,} tokens"), evaluation.bytes_per_token
    for column in ("", "nats/token", "bits/byte"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("this run", f"{evaluation.loss:.4f}", f"{evaluation.bits_per_byte:.4f}")
    if averaged is not None:
        table.add_row("averaged weights", f"{averaged:.4f}", f"{bits_per_byte(averaged, ratio):.4f}")
    table.add_row("unigram baseline", f"{unigram:.4f}", f"{bits_per_byte(unigram, ratio):.4f}")
    return table


def _table(title: str) -> Table:
    """A table without vertical lines: it fits 80 columns and survives being copied out of a log."""
    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")


def plot_losses(workdir: RunDirectory, unigram: float) -> RunDirectory:
    """Draw training and validation loss over tokens into ``workdir/loss.png``; returns its path."""
    # Imported here: it costs a second, and only a finished run draws.
    from matplotlib.figure import Figure

    rows = read_rows(workdir / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    tokens = {row["step"]: row["total_tokens"] / 1e6 for row in train}
    evals = [row for row in rows if row["kind"] == "eval" and row["step"] in tokens]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(list(tokens.values()), [row["loss_mean"] for row in train], color="#0072B2", lw=1, label="training")
    axis.plot(
        [tokens[row["step"]] for row in evals],
        [row["loss"] for row in evals],
        "o-",
        color="#D55E00",
        label="validation",
    )
    axis.axhline(unigram, color="#666666", ls="--", lw=1, label="unigram baseline")
    for row in rows:
        if row["kind"] == "rewire" and row["step"] in tokens:
            axis.axvline(tokens[row["step"]], color="#009E73", lw=0.5, alpha=0.3)
    axis.set(xlabel="training tokens (millions)", ylabel="loss (nats/token)", title=workdir.resolve().name)
    axis.legend(frameon=False)
    path = workdir / "loss.png"
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    return path
