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
# # Repeated data
#
# The published law saturates: each density flattens with epochs, the sparse ones later. It can never rise.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sparsejax
from sparsejax.scaling.fit import fit
from sparsejax.scaling.laws.registry import law_named
from sparsejax.scaling.plots import plot_fitted_epochs, plot_repetition
from sparsejax.scaling.rows import table_of
from sparsejax.scaling.saved_fit import published_default
from sparsejax.scaling.tables import read_rows

# %%
known = published_default()
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
plot_repetition(axes, known.law, known.values, 3e8, 1.3e9, (1.0, 0.5, 0.25, 0.125))

# %% [markdown]
# Runs do rise. These are ours, on a text small enough to be learned by heart (docs/RESULTS.md), with the overfitting
# law, whose rise may grow with epochs (`eta`). `L0` is the logarithm of the vocabulary's size.

# %%
runs = Path(sparsejax.__file__).parents[1] / "docs" / "results" / "repeated.csv"
table = table_of(read_rows(runs, "active_non_embedding"), runs.name)
found = fit(law_named("sparse_overfitting"), table, fixed={"L0": np.log(4096)}, free_held=("eta",))
print(f"{len(table)} runs, R^2 {found.r2:.4f}, residuals {found.scale:.2%}")

# %%
sizes = list(dict.fromkeys(name.partition("/")[0] for name in table.names))
figure, panels = plt.subplots(1, len(sizes), figsize=(5 * len(sizes), 4), sharey=True, squeeze=False)
for axes, size in zip(panels[0], sizes, strict=True):
    mine = np.array([name.startswith(f"{size}/") for name in table.names])
    mine &= table.columns["U"] == table.columns["U"].min()
    plot_fitted_epochs(axes, found.law, found.values, table.where(mine))
    axes.set_title(f"{size}: {axes.get_title()}")
