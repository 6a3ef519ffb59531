"""The first run: SMET at density 0.25 on real text, on two CPU cores, in a few minutes.

    make quickstart
    sparsejax train --config=configs/quickstart.py --workdir=runs/quickstart

Text: the .py sources of Python's own standard library, read in place (about 11 MB), with a 4k BPE trained on them.
A model this small wants a higher learning rate and a shorter ramp than the papers' sizes; both were chosen by short
runs on this corpus. One ablation in one line, for example the loss spikes that the paper is about:

    sparsejax train --config=configs/quickstart.py --workdir=runs/naive --config.optim.form=naive
"""

from ml_collections import ConfigDict

from configs.base import get_config as base


def get_config() -> ConfigDict:
    """Base with the shape, the length and the rates of a small run."""
    c = base()
    c.model.update(size="quickstart", hidden=128, mlp=384, heads=2, kv_heads=2, head_dim=64, layers=4)
    # A CPU multiplies bfloat16 slower than float32, and recomputes attention faster than it reads it back.
    c.model.update(compute_dtype="float32", remat="dots")
    c.topology.update(density=0.25, block=(16, 16), every=40, stop_fraction=0.75)
    c.optim.update(lr=4e-3, b2=0.99, ramp=20)
    c.data.update(vocab_size=4096, sequence_length=256)
    c.train.update(steps=600, batch_size=8, log_every=20, eval_every=200, eval_tokens=100_000, checkpoint_every=200)
    return c
