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
# # The best density
#
# Size and epochs are free at every density. Below zero, sparse beats the best dense model of the same FLOPs.

# %%
import matplotlib.pyplot as plt

from sparsejax.scaling.frontier import Budget, best
from sparsejax.scaling.plots import plot_densities
from sparsejax.scaling.saved_fit import published_default

# %%
known = published_default()  # or sparsejax.scaling.saved_fit.read(Path("fit/fit.json"))
budget = Budget(flops=1e20, unique_tokens=1.3e9)
figure, axes = plt.subplots(figsize=(6, 4))
plot_densities(axes, known.law, known.values, budget, (1e19, 1e20, 1e21))

# %%
print(best(known.law, known.values, budget))
