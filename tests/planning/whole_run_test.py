"""What a check says of a run, against arithmetic of this test's own, for every kind of run; nothing is compiled.

The model: 2 layers of width 32, an MLP of 64, 2 heads of 16, byte vocabulary of 257, blocks of 8 x 8, 32 tokens a row.
"""

import dataclasses
import itertools

import pytest

from sparsejax.config import resolve
from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.systems import parse_system
from sparsejax.planning import check_report
from sparsejax.planning.facts import Facts, facts_of
from sparsejax.planning.fit import checked
from sparsejax.topology.methods import METHODS
from tests.training.tiny import tiny_run

LAYERS, WIDTH, MLP, VOCABULARY, LENGTH, ROWS, STEPS = 2, 32, 64, 257, 32, 8, 1000
MASKABLE = 4 * WIDTH * WIDTH + 3 * WIDTH * MLP  # of one layer
KINDS = {"q": WIDTH * WIDTH, "k": WIDTH * WIDTH, "v": WIDTH * WIDTH, "o": WIDTH * WIDTH}
KINDS |= {"gate": WIDTH * MLP, "up": WIDTH * MLP, "down": WIDTH * MLP}
HEAD, SQUARE = 2 * WIDTH * VOCABULARY, 4 * LENGTH * WIDTH  # FLOPs of a token: head; scores and mixing of a layer
EMBEDDING, SCALES = 2 * VOCABULARY * WIDTH, (2 * LAYERS + 1) * WIDTH
FACTS = Facts(steps=STEPS, vocab_size=VOCABULARY, start_id=256)
SHAPE = {
    "model_hidden": WIDTH,
    "model_mlp": MLP,
    "model_heads": 2,
    "model_kv_heads": 2,
    "model_head_dim": 16,
    "model_layers": LAYERS,
    "topology_block": (8, 8),
    "topology_density": 0.25,
    "topology_every": 10,
    "data_sequence_length": LENGTH,
    "train_batch_size": ROWS,
    "train_steps": STEPS,
    "train_loss_chunk": 0,
}


def run_of(tmp_path, method, **changes):
    """A run of a named method on the model above; ``changes`` are fields as ``tiny_run`` takes them."""
    settings = {f"topology_{key}": value for key, value in METHODS[method].topology.items()}
    return tiny_run(tmp_path, **SHAPE, **settings, topology_method=method, **changes)
