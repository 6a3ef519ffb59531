"""The text of ``sparsejax advise``: two choices, how sure they are, and the command that would run each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sparsejax.scaling.advice import Advised, Ends
from sparsejax.scaling.devices import ASSUMED_UTILISATION, Realised, hours, kernel_block, nearest, skips_zeros
from sparsejax.scaling.frontier import FLOPS_PER_PARAMETER_AND_TOKEN, Budget, predicted
from sparsejax.scaling.saved_fit import SavedFit

if TYPE_CHECKING:  # at run time it would import jax, and the answer wait for it
    from sparsejax.hardware.systems import System

# Conventions that count what is active; the others count the dense twin.
_ACTIVE = ("active", "active_non_embedding", "total_times_density", "mean_active", "nonzero")


def advice_lines(
    known: SavedFit, budget: Budget, dense: Advised, sparse: Advised | None, system: System | None
) -> list[str]:
    """What to print, a line each."""
    lines = [
        f"{budget.unique_tokens:.3g} unique tokens, {budget.flops:.3g} training FLOPs (6 N D"
        + (f", as {system.name} executes them)" if system is not None else ")"),
        f"law {known.law.name}: {known.origin}; N counts {known.convention.replace('_', ' ')}",
    ]
    lines += ["", *_choice_lines("best dense", known, budget, dense, system)]
    if sparse is None:
        return [*lines, "", f"law {known.law.name} does not know density: there is no sparse choice"]
    lines += ["", *_choice_lines("best sparse", known, budget, sparse, system), ""]
    gain = dense.choice.loss - sparse.choice.loss
    if sparse.choice.density > 0.999 or gain <= 0:
        reason = "" if skips_zeros(system) else ": auto multiplies zeros there, so FLOPs follow the dense twin"
        lines.append(f"sparsity does not pay here{reason}")
    else:
        error = known.noise * dense.choice.loss
        lines.append(
            f"sparse is {gain:.4f} nats/token lower; the law's own error of one run is {error:.4f}"
            + (", so the difference is within it" if gain < error else "")
        )
    return lines


def _choice_lines(title: str, known: SavedFit, budget: Budget, advised: Advised, system: System | None) -> list[str]:
    choice = advised.choice
    low, high = advised.loss.low, advised.loss.high
    lines = [
        f"{title}",
        f"  loss        {choice.loss:.4f}  (90 %: {low:.3f} to {high:.3f}; error of the law on {known.noise_of})",
        f"  density     {choice.density:.3f}{_ends(advised.density)}",
        f"  parameters  {choice.parameters:.3g}{_ends(advised.parameters)}",
        f"  tokens      {choice.tokens:.3g}, {choice.epochs:.2f} epochs{_ends(advised.epochs)}",
    ]
    if not known.count and title == "best dense":
        lines.append("  optima have no intervals: the authors published none; fit your own runs to get them")
    lines += [f"  WARNING     at the edge of the search, so no optimum: {edge}" for edge in choice.edges]
    lines += [f"  beyond      {words}: extrapolated" for words in advised.beyond]
    realised = nearest(
        _total(known, choice.parameters, choice.density), choice.density, kernel_block(system), skips_zeros(system)
    )
    return lines + _run_lines(known, budget, realised, choice.density, system)


def _run_lines(known: SavedFit, budget: Budget, run: Realised, density: float, system: System | None) -> list[str]:
    N = {"total": run.total, "total_times_density": run.total * density}.get(known.convention, run.active)
    per_token = FLOPS_PER_PARAMETER_AND_TOKEN * N * (1.0 if skips_zeros(system) else 1 / density)
    epochs = max(round(budget.flops / per_token / budget.unique_tokens), 1)
    tokens = epochs * budget.unique_tokens
    loss = _loss(known, N, tokens, budget.unique_tokens, density)
    lines = [
        f"  nearest     {run.size}: {run.total:,} parameters, {run.active:,} active, {epochs} epochs, loss {loss:.4f}, "
        f"{per_token * tokens:.3g} FLOPs"
    ]
    if system is not None:
        share = run.state_bytes / system.devices / 2**30
        lines.append(
            f"  on {system.name}: {hours(run, tokens, system):,.1f} hours at {ASSUMED_UTILISATION:.0%} of peak "
            f"(assumed), {share:.2f} GiB of state a device; 'sparsejax check' compiles it"
        )
    how = "method=dense" if run.density == 1 else f"density={density:.3g},block={run.block}"
    lines.append(
        f"  sparsejax train --config=configs/llama.py:size={run.size},{how} --workdir=runs/{run.size} "
        f"--config.data.unique_tokens={budget.unique_tokens:.0f} --config.train.steps=0 --config.train.epochs={epochs}"
    )
    return lines


def _loss(known: SavedFit, N: float, D: float, U: float, S: float) -> float:
    return predicted(known.law, known.values, np.array(N), np.array(D), U, np.array(S)).item()


def _total(known: SavedFit, parameters: float, density: float) -> float:
    return parameters / density if known.convention in _ACTIVE else parameters


def _ends(ends: Ends | None) -> str:
    if ends is None or not math.isfinite(ends.low + ends.high):
        return ""
    return f"  (90 %: {ends.low:.3g} to {ends.high:.3g})"
