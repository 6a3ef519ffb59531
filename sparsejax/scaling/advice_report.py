"""The text of ``sparsejax advise``: two choices, how sure they are, and the command that would run each."""

from __future__ import annotations

import math

from sparsejax.scaling.advice import Advice, Advised
from sparsejax.scaling.devices import ASSUMED_UTILISATION, hours, skips_zeros
from sparsejax.scaling.limits import Limits
from sparsejax.scaling.prediction import Ends, Prediction
from sparsejax.scaling.saved_fit import SavedFit
from sparsejax.scaling.shipped import Run

# FLOPs that stay unspent by more than this share are worth a line.
_UNSPENT = 0.9


def advice_lines(known: SavedFit, limits: Limits, advice: Advice) -> list[str]:
    """What to print, a line each."""
    text = "unlimited" if limits.unique_tokens == math.inf else f"{limits.unique_tokens:.3g}"
    lines = [
        f"{text} unique tokens, {limits.flops:.3g} training FLOPs (6 N D"
        + (f", as {limits.system.name} executes them)" if limits.system is not None else ")"),
        f"law {known.law.name}: {known.origin}; N counts {known.convention.replace('_', ' ')}",
    ]
    if not known.count:
        lines.append("optima have no intervals: no refits are known; fit your own runs to get them")
    for title, found in (("best dense", advice.dense), ("best sparse", advice.sparse)):
        lines.append("")
        lines += [f"{title}: {found}"] if isinstance(found, str) else _choice_lines(title, known, limits, found)
    if isinstance(advice.dense, Advised) and isinstance(advice.sparse, Advised):
        lines += ["", _gain(known, limits, advice.dense, advice.sparse)]
    return lines


def prediction_lines(known: SavedFit, found: Prediction) -> list[str]:
    """What ``--predict`` prints, a line each."""
    lines = [
        f"law {known.law.name}: {known.origin}; N counts {known.convention.replace('_', ' ')}",
        f"loss {found.loss:.4f} nats/token (90 %: {found.ends.low:.3f} to {found.ends.high:.3f}; error of the law on "
        f"{known.noise_of})",
    ]
    return lines + [f"WARNING outside the fitted runs, so not known: {words}" for words in found.outside]


def _gain(known: SavedFit, limits: Limits, dense: Advised, sparse: Advised) -> str:
    gain = dense.choice.loss - sparse.choice.loss
    if sparse.choice.density > 0.999 or gain <= 0:
        reason = "" if skips_zeros(limits.system) else ": auto multiplies zeros there, so FLOPs follow the dense twin"
        return f"sparsity does not pay here{reason}"
    middle = known.law.compared(dense.choice.loss)
    error = abs(float(known.law.loss_of(middle + known.noise)) - dense.choice.loss)
    return f"sparse is {gain:.4f} nats/token lower; the law's own error of one run is {error:.4f}" + (
        ", so the difference is within it" if gain < error else ""
    )


def _choice_lines(title: str, known: SavedFit, limits: Limits, advised: Advised) -> list[str]:
    choice, ends = advised.choice, advised.loss
    lines = [
        f"{title}",
        f"  loss        {choice.loss:.4f}  (90 %: {ends.low:.3f} to {ends.high:.3f}; error of the law on "
        f"{known.noise_of})",
        f"  density     {choice.density:.3g}{_interval(advised.density)}",
        f"  parameters  {choice.parameters:.3g}{_interval(advised.parameters)}",
        f"  tokens      {choice.tokens:.3g}, {choice.epochs:.2f} epochs{_interval(advised.epochs)}",
    ]
    if choice.unique_tokens < limits.unique_tokens * 0.99 and limits.unique_tokens < math.inf:
        lines.append(f"  text        {choice.unique_tokens:.3g} of {limits.unique_tokens:.3g} unique tokens are used")
    lines += [f"  WARNING     at an edge, so no optimum: {edge}" for edge in advised.edges]
    if isinstance(advised.run, str):
        return [*lines, f"  nearest     {advised.run}"]
    return lines + _run_lines(limits, advised.run)


def _run_lines(limits: Limits, run: Run) -> list[str]:
    model, found = run.model, run.prediction
    lines = [
        f"  nearest     {model.size}: {model.total:,} parameters, {model.active:,} active, {run.epochs} epochs, loss "
        f"{found.loss:.4f} (90 %: {found.ends.low:.3f} to {found.ends.high:.3f}), {run.flops:.4g} FLOPs"
    ]
    if run.flops < _UNSPENT * limits.flops:
        lines.append(
            f"  spent       {run.flops:.3g} of {limits.flops:.3g} FLOPs: the rest gains nothing within the other limits"
        )
    if limits.system is not None:
        share = model.state_bytes / limits.system.devices / 2**30
        lines.append(
            f"  on {limits.system.name}: {hours(model, run.tokens, limits.system):,.4g} hours at "
            f"{ASSUMED_UTILISATION:.0%} of peak (assumed), {share:.2f} GiB of state a device; 'sparsejax check' "
            "compiles it"
        )
    dense = model.density == 1
    how = "method=dense" if dense else f"density={run.density:g},block={model.block}"
    lines.append(
        f"  sparsejax train --config=configs/llama.py:size={model.size},{how} "
        f"--workdir=runs/{model.size}-{'dense' if dense else f'{run.density:g}'} "
        f"--config.data.unique_tokens={run.unique_tokens} --config.train.steps=0 --config.train.epochs={run.epochs}"
    )
    return lines


def _interval(ends: Ends | None) -> str:
    if ends is None or not math.isfinite(ends.low + ends.high):
        return ""
    return f"  (90 %: {ends.low:.3g} to {ends.high:.3g})"
