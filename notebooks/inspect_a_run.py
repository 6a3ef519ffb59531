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
# # Inspect a run
#
# `SPARSEJAX_RUN` names a run directory; without it, that of `make quickstart`.

# %%
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt

from sparsejax.scaling.runs import read

# %%
run = Path(os.environ.get("SPARSEJAX_RUN", "../runs/quickstart"))
result = read(run / "result.json")
for name in (
    "size",
    "method",
    "density",
    "active_parameters",
    "unique_tokens",
    "epochs",
    "validation_loss",
    "loss_spike",
):
    print(f"{name:20} {getattr(result, name)}")
print(f"executed over theoretical FLOPs: {result.executed_flops / result.theoretical_flops:.2f}")

# %%
rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
train = [row for row in rows if row["kind"] == "train"]
figure, axes = plt.subplots(figsize=(6, 4))
axes.plot([row["step"] for row in train], [row["loss_mean"] for row in train], color="#0072B2")
axes.axhline(result.validation_loss, color="#D55E00", linestyle="--", label="validation, at the end")
axes.set(xlabel="step", ylabel="training loss (nats/token)", title=result.name)
axes.legend()
