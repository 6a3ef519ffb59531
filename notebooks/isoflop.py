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
# # The best size for a FLOP budget
#
# Each curve spends one budget; the star is its optimum, hollow where it lies on the edge of the search.

# %%
import matplotlib.pyplot as plt

from sparsejax.scaling.frontier import Budget
from sparsejax.scaling.plots import plot_iso_flops
from sparsejax.scaling.saved_fit import published_default

# %%
known = published_default()  # or sparsejax.scaling.saved_fit.read(Path("fit/fit.json"))
budget = Budget(flops=1e20, unique_tokens=1.3e9)
figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for axes, density in zip(panels, (1.0, 0.5), strict=True):
    plot_iso_flops(axes, known.law, known.values, budget, (1e19, 1e20, 1e21), density)
