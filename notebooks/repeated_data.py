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
# Left, the saturating law: each density flattens with epochs, the sparse ones later. It can never rise. Right, a form
# that can, with size: the overfitting law with a density of its own, at example values that no fit has given yet.

# %%
import matplotlib.pyplot as plt

from sparsejax.scaling.laws.registry import law_named
from sparsejax.scaling.plots import plot_repetition, plot_sizes
from sparsejax.scaling.saved_fit import published_default

# %%
known, form = published_default(), law_named("sparse_overfitting")
figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot_repetition(panels[0], known.law, known.values, 3e8, 1.3e9, (1.0, 0.5, 0.25, 0.125))
plot_sizes(panels[1], form, form.example, 1e8, 16, (1.0, 0.5, 0.25, 0.125))
