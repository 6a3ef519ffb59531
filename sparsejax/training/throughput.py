"""FLOPs of a run's programs, and tokens a second as FLOP/s, in two columns that are never mixed.

``executed`` counts what the programs multiply: zeros of a transient dense weight, a teacher's forward pass and rows
that only fill up a batch included. It is the numerator of MFU, whose denominator is the dense bfloat16 peak times
the number of chips. ``theoretical`` counts active weights and tokens only and is never called MFU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sparsejax.hardware.chips import chip_named
from sparsejax.models.accounting import DENSE_IMPLEMENTATIONS, executed_flops, theoretical_flops
from sparsejax.models.weight_table import SparseWeight, weight_table
from sparsejax.topology.density_path import decays
from sparsejax.topology.growth import SCORED
from sparsejax.training.distill import teacher_flops
from sparsejax.training.loss import chunk_count
from sparsejax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of a train step per token: ``executed`` of every place in the batch, ``theoretical`` of its tokens."""

    executed: float
    theoretical: float


def weights_of_step(recipe: Recipe, step: int) -> Mapping[str, SparseWeight]:
    """The weights that step number ``step`` (from 1) trains, with the counts that they have then."""
    if not decays(recipe.run.topology):
        return recipe.weights
    run, fsdp = recipe.run, recipe.parallel.fsdp
    return weight_table(run.model, run.topology, step - 1, recipe.steps, fsdp=fsdp)


def step_flops(recipe: Recipe, weights: Mapping[str, SparseWeight]) -> StepFlops:
    """FLOPs of a train step of the recipe's programs, with the counts of ``weights``."""
    counted = [weight.counted for weight in weights.values()]
    length, remat = recipe.run.data.sequence_length, recipe.run.model.remat
    executed = executed_flops(
        recipe.shape, counted, length, recipe.implementations, remat, logits_recomputed=logits_recomputed(recipe)
    )
    theoretical = theoretical_flops(recipe.shape, counted, length).train
    return StepFlops(executed.train + teacher_flops(recipe), theoretical)


def score_flops(recipe: Recipe) -> float:
    """FLOPs per place in the batch that a pass of the score program executes (``growth_scores.py``).

    That is a step without the gradients of weights, which it does not make, and for every sparse kind the product
    ``X^T dY`` over all its places. Layers are made again in the backward pass; the head is not, for the loss itself is
    not wanted. Where a layer's weights are made dense for it, they are multiplied whole. ``drop="taylor"`` alone makes
    the gradient of the active blocks instead.
    """
    run = recipe.run
    dense = run.train.microbatches > 1 or recipe.parallel.data > 1
    names = dict.fromkeys(recipe.sparse, "transient") if dense else recipe.implementations
    counted = [weight.counted for weight in recipe.weights.values()]
    flops = executed_flops(recipe.shape, counted, run.data.sequence_length, names, "full")
    products = executed_flops(recipe.shape, counted, 0, names, "none").forward
    score = 0
    for name, weight in recipe.sparse.items():
        everywhere = run.topology.grow in SCORED or dense or names[name] in DENSE_IMPLEMENTATIONS
        places = weight.grid.cells if everywhere else weight.count
        also_active = everywhere and run.topology.drop == "taylor" and names[name] not in DENSE_IMPLEMENTATIONS
        block = weight.grid.block[0] * weight.grid.block[1]
        score += 2 * block * (places + (weight.count if also_active else 0))
    return flops.train - products + run.model.layers * score


def logits_recomputed(recipe: Recipe) -> bool:
    """Whether the loss is taken in chunks, whose logits the backward pass makes once more."""
    train, parallel = recipe.run.train, recipe.parallel
    # The tokens whose logits one device makes at a time.
    own = train.batch_size // (parallel.data * train.microbatches), recipe.run.data.sequence_length // parallel.tensor
    return chunk_count(own, train.loss_chunk) > 1


class Throughput:
    """Turns the tokens a second of a run into FLOP/s."""

    def __init__(self, recipe: Recipe) -> None:
        """Look up the chip."""
        self.recipe = recipe
        devices = recipe.parallel.data * recipe.parallel.tensor
        # A CPU has no row in the table of chips, so it gets no MFU.
        chip = recipe.target.chip
        self.peak_flops = None if chip is None else chip_named(chip).peak_flops * devices
        self._interval, self._flops = 0, step_flops(recipe, weights_of_step(recipe, 1))

    def of_step(self, step: int) -> StepFlops:
        """FLOPs of step number ``step``, from 1."""
        interval = (step - 1) // self.recipe.run.topology.every
        if interval != self._interval and decays(self.recipe.run.topology):
            self._interval, self._flops = interval, step_flops(self.recipe, weights_of_step(self.recipe, step))
        return self._flops

    def row(self, executed_per_second: float, theoretical_per_second: float) -> dict[str, float]:
        """Log values, FLOP/s: both columns, and ``mfu`` on a chip of the table."""
        values = {
            "executed_flops_per_second": executed_per_second,
            "theoretical_flops_per_second": theoretical_per_second,
        }
        if self.peak_flops is not None:
            values["mfu"] = executed_per_second / self.peak_flops
        return values
