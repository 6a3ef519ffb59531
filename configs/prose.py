"""Small models on real prose: the base of every file in configs/ablations/, made for two CPU cores.

    SPARSEJAX_BOOKS=<directory> sparsejax train --config=configs/prose.py --workdir=runs/prose

The directory holds English books as JSON lines, `books-train-00000-of-00008.jsonl.xz` for training and
`books-validation-00000-of-00001.jsonl.xz` with other books for validation; losses of docs/RESULTS.md are on these.
Without the variable the text is Python's standard library, as in quickstart.py: questions stay the same, numbers do
not. Either way a 4k BPE is trained on the training text: with 32,000 tokens, embedding and head would be nine tenths of
a model this small. A run is 0.4 M tokens and about half a minute; it says which of two choices is better at this size,
and nothing about larger models. Moments decay slowly (b2 0.999, as the papers have it), because that is what makes
regrown blocks spike.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from configs.base import get_config as base

BOOKS = "SPARSEJAX_BOOKS"


def get_config() -> ConfigDict:
    """Base with the shape, the length, the rates and the text of a run of half a minute."""
    c = base()
    c.model.update(size="prose", hidden=128, mlp=384, heads=4, kv_heads=4, head_dim=32, layers=2)
    c.model.compute_dtype = "float32"
    c.topology.update(density=0.25, block=(16, 16), every=20, stop_fraction=0.75)
    c.optim.update(lr=2e-3, b2=0.999, ramp=20)
    c.data.update(vocab_size=4096, sequence_length=128)
    if BOOKS in os.environ:
        books = Path(os.environ[BOOKS])
        c.data.update(
            source="jsonl",
            path=str(books / "books-train-00000-of-00008.jsonl.xz"),
            validation_path=str(books / "books-validation-00000-of-00001.jsonl.xz"),
        )
    c.train.update(steps=400, batch_size=8, log_every=20, eval_every=0, eval_tokens=60_000, checkpoint_every=400)
    return c
