"""Tokens a second as FLOP/s, in two columns that are never mixed, and as MFU where the chip is known."""

from __future__ import annotations

from sparsejax.hardware.chips import chip_named
from sparsejax.models.accounting import executed_flops, theoretical_flops
from sparsejax.training.distill import teacher_flops
from sparsejax.training.loss import chunk_count
from sparsejax.training.recipe import Recipe


class Throughput:
    """Turns the tokens a second of a run into FLOP/s.

    ``executed`` counts what the program multiplies, zeros of a transient dense weight and a teacher's forward pass
    included; it is the numerator of MFU, whose denominator is the chip's dense bfloat16 peak times the number of
    devices. ``theoretical`` counts active weights only and is never called MFU.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Look up the chip and count FLOPs per token."""
        counted = [weight.counted for weight in recipe.weights.values()]
        train, length, remat = recipe.run.train, recipe.run.data.sequence_length, recipe.run.model.remat
        parallel = recipe.parallel
        # The tokens whose logits one device makes at a time.
        own = train.batch_size // (parallel.data * train.microbatches), length // parallel.tensor
        chunks = chunk_count(own, train.loss_chunk)
        self.executed = executed_flops(
            recipe.shape, counted, length, recipe.implementations, remat, logits_recomputed=chunks > 1
        ).train + teacher_flops(recipe)
        self.theoretical = theoretical_flops(recipe.shape, counted, length).train
        devices = parallel.data * parallel.tensor
        # A CPU has no row in the table of chips, so it gets no MFU.
        chip = recipe.target.chip
        self.peak_flops = None if chip is None else chip_named(chip).peak_flops * devices

    def row(self, tokens_per_second: float) -> dict[str, float]:
        """Log values, FLOP/s: both columns, and ``mfu`` on a chip of the table."""
        values = {
            "executed_flops_per_second": self.executed * tokens_per_second,
            "theoretical_flops_per_second": self.theoretical * tokens_per_second,
        }
        if self.peak_flops is not None:
            values["mfu"] = values["executed_flops_per_second"] / self.peak_flops
        return values
