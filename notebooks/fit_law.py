# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fit a law to runs
#
# `SPARSEJAX_ROWS` names a directory of finished runs or a CSV table; without it the runs are drawn from the law with
# 0.5 % noise, so that the answer is known. The same as `sparsejax fit`, with the pieces in hand.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

from sparsejax.scaling.fit import fit
from sparsejax.scaling.held_out import held_out
from sparsejax.scaling.intervals import bootstrap, diagnostics, profile
from sparsejax.scaling.laws.registry import law_named
from sparsejax.scaling.rows import table_of
from sparsejax.scaling.simulate import simulated
from sparsejax.scaling.tables import read_rows

# %%
law = law_named(os.environ.get("SPARSEJAX_LAW", "chinchilla"))
rows = os.environ.get("SPARSEJAX_ROWS")
table = table_of(read_rows(Path(rows)), Path(rows).name) if rows else simulated(law, noise=0.005)
print(law.equation)

# %% [markdown]
# Many starts, one compiled program; delta of the Huber loss follows the residuals.

# %%
found = fit(law, table)
print(f"{found.agreement:.0%} of {found.starts} starts agree; R^2 {found.r2:.4f}; delta {found.delta:.4f}")

# %% [markdown]
# Two intervals for each parameter. Where together they cover a factor of four, the data do not say.

# %%
refits = bootstrap(found, 500)
for name in found.free:
    case, likelihood = refits.interval(name, 0.9), profile(found, name, 0.9)
    print(
        f"{name:8} {found.values[name]:10.4g}   {case.low:9.3g} to {case.high:9.3g}   "
        f"{likelihood.low:9.3g} to {likelihood.high:9.3g}   {'' if case.identified else 'not identified'}"
    )
print(diagnostics(found))

# %% [markdown]
# What counts is the run that was not there.

# %%
for one in held_out(found):
    print(f"left out: {one.split:12} {one.runs:4} runs, error {one.error:.2%}, bias {one.bias:+.2%}")

# %%
figure, axes = plt.subplots(figsize=(5, 4))
axes.axhline(0, color="0.6", linewidth=1)
axes.plot(found.predicted, found.residuals, "o", color="#0072B2", markersize=4)
axes.set(xlabel="predicted loss (nats/token)", ylabel=found.law.residual_label, title="residuals")
