"""Dense weights for runs that begin with them, without a file of them."""

import dataclasses

import jax
import numpy as np

from sparsejax.data.tokenizer import ByteTokenizer


def dense_params(recipe):
    """Random weights of the dense twin, as NumPy arrays."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.3 * random.standard_normal(leaf.shape) + 0.1).astype(np.float32),
        recipe.dense.abstract.params,
    )


@dataclasses.dataclass
class Checkpoint:
    """A dense checkpoint as the trainer sees one."""

    weights: dict
    tokenizer: ByteTokenizer | None = dataclasses.field(default_factory=ByteTokenizer)
    vocab_size: int = 257
    wrong: tuple[str, ...] = ()

    def differences(self, model):
        return list(self.wrong)

    def params(self, *, vocab_size, mlp):
        return self.weights
