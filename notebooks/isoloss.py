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
# # Trading size against epochs
#
# How many epochs each size needs for the same loss. Where a curve ends, no number of epochs is enough.

# %%
import matplotlib.pyplot as plt

from sparsejax.scaling.plots import plot_iso_losses
from sparsejax.scaling.saved_fit import published_default

# %%
known = published_default()  # or sparsejax.scaling.saved_fit.read(Path("fit/fit.json"))
figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for axes, density in zip(panels, (1.0, 0.5), strict=True):
    plot_iso_losses(axes, known.law, known.values, 1.3e9, (3.2, 3.0, 2.9, 2.85), density)
