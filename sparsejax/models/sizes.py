"""The shipped model sizes, and the blocks and shares that each of them can be cut into.

Plain Python. Sizes are those of SMET (arXiv 2606.00888) and of the scaling study of sparse training under
repeated data (arXiv 2606.01155). Both use a vocabulary of 32000, as many key as query heads, an untied
head, RMSNorm with eps 1e-6, rotary embeddings with base 1e4 and no biases.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from sparsejax.models.shapes import DecoderShape

VOCAB = 32000
BLOCKS: tuple[tuple[int, int], ...] = (
    (1, 1),
    (1, 4),
    (8, 8),
    (16, 16),
    (32, 32),
    (64, 64),
    (128, 128),
    (256, 256),
)
SHARDS: tuple[int, ...] = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Size:
    """One named size.

    Attributes:
      name: as written in ``configs/llama.py:size=<name>``.
      hidden: width of the residual stream.
      mlp: inner width of the SwiGLU layer as published; ``rounded_mlp`` gives the width a run uses.
      heads: query heads, and key and value heads.
      layers: number of decoder layers.
      source: the paper it comes from.
    """

    name: str
    hidden: int
    mlp: int
    heads: int
    layers: int
    source: str

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    def shape(self, mlp: int, vocab: int = VOCAB) -> DecoderShape:
        """The decoder of this size with the MLP width that blocks and shares ask for."""
        return DecoderShape(
            hidden=self.hidden,
            mlp=mlp,
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.head_dim,
            layers=self.layers,
            vocab=vocab,
            tied_head=False,
        )


@dataclasses.dataclass(frozen=True)
class Cut:
    """A legal way to cut a size: its block, its number of shares, and the MLP width the run then has."""

    block: tuple[int, int]
    shards: int
    mlp: int


_SMET = "arXiv 2606.00888"
_SCALING = "arXiv 2606.01155"
SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        Size("60m", 512, 1376, 8, 8, _SMET),
        Size("130m", 768, 2048, 12, 12, _SMET),
        Size("240m", 768, 2416, 16, 24, _SMET),
        Size("350m", 1024, 2736, 16, 24, _SMET),
        Size("1b", 2048, 5461, 32, 24, _SMET),
        Size("3b", 2560, 6848, 32, 32, _SMET),
        Size("7b", 4096, 11008, 32, 32, _SMET),
        Size("20m", 256, 688, 4, 4, _SCALING),
        Size("40m", 512, 1024, 8, 8, _SCALING),
        Size("60m-s", 640, 1920, 10, 11, _SCALING),
        Size("120m", 768, 2560, 12, 15, _SCALING),
        Size("240m-s", 896, 3584, 14, 18, _SCALING),
        Size("480m", 1280, 4224, 20, 21, _SCALING),
        Size("960m", 1792, 5120, 28, 24, _SCALING),
        Size("1b92", 2304, 6144, 36, 30, _SCALING),
        Size("3b84", 3072, 8192, 32, 34, _SCALING),
    )
}


def widened(size: Size, density: float, mlp_unit: int) -> Size:
    """The wider size whose active weights at ``density`` are as many as all of ``size``: Sparse-IFT-Wide.

    Hidden width, heads and MLP width grow by ``density^(-1/2)``, so attention and MLP cost the FLOPs of the dense
    ``size`` (arXiv 2303.11525, section 3, "sparse wide"). Embedding, head and the attention square grow with the
    width and are not made up for.

    Args:
      size: the dense size to match.
      density: of the wide model, in (0, 1].
      mlp_unit: the MLP width is a multiple of this.
    """
    return _with_weights(size, 1 / density, mlp_unit, f"{size.name}-wide")


def dense_with_active(size: Size, density: float, mlp_unit: int) -> Size:
    """The narrower size whose weights are together as many as the active ones of ``size`` at ``density``.

    Arguments as in ``widened``. Layers stay; hidden width, heads and MLP width shrink by ``density^(1/2)``.

    Raises:
      ValueError: less than one head would be left.
    """
    return _with_weights(size, density, mlp_unit, f"{size.name}-narrow")


def _with_weights(size: Size, factor: float, mlp_unit: int, name: str) -> Size:
    """Widths whose attention and MLP weights are ``factor`` times as many.

    The heads keep their width and their number is rounded; the MLP takes up what the rounding leaves, up to its unit:
    a layer has ``4 hidden^2 + 3 hidden mlp`` weights.
    """
    heads = max(round(size.heads * math.sqrt(factor)), 1)
    hidden = heads * size.head_dim
    wanted = factor * (4 * size.hidden**2 + 3 * size.hidden * size.mlp)
    mlp = round((wanted - 4 * hidden**2) / (3 * hidden) / mlp_unit) * mlp_unit
    if mlp < mlp_unit:
        raise ValueError(
            f"{size.name} has {size.heads} heads of {size.head_dim}: too few for {factor:g} of its weights"
        )
    return dataclasses.replace(size, name=name, hidden=hidden, mlp=mlp, heads=heads)


def rounded_mlp(mlp: int, block: Sequence[int], shards: int) -> int:
    """The MLP width a run uses: ``mlp`` rounded up to a multiple of the block times the shares.

    The width is cut along the block's columns in gate and up and along its rows in down, so it must be a
    multiple of both sides. The hidden width is never changed: every other shape follows from it.
    """
    unit = math.lcm(*block) * shards
    return -(-mlp // unit) * unit


def legal(size: Size) -> tuple[Cut, ...]:
    """Every shipped (block, shares) that cuts this size exactly; what a shape cannot hold is left out.

    Both sides of the block times the shares must divide the hidden width, which is also the width of all heads.
    """
    return tuple(
        Cut(block=block, shards=shards, mlp=rounded_mlp(size.mlp, block, shards))
        for block in BLOCKS
        for shards in SHARDS
        if all(size.hidden % (side * shards) == 0 for side in block)
    )
