"""How many parameters a Monarch matrix has, and which factors come nearest to a density. Plain Python.

Axes as in ``monarch.py``: K input width, N output width, b blocks of each factor, i inner width of a block.
"""

from __future__ import annotations

import dataclasses
import math

# How far the parameters may miss the request for a shape nearer to the paper's to be preferred.
_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class MonarchShape:
    """The two factors of a matrix ``[K, N]``.

    Attributes:
      blocks: b, blocks of each factor; divides K and N.
      inner: i, inner width of a block, a multiple of ``blocks``: every block of the second factor reads from every
        block of the first.
    """

    blocks: int
    inner: int

    def parameters(self, shape: tuple[int, int]) -> int:
        """``i (K + N)``: blocks of ``K / b x i`` and of ``i x N / b``."""
        return self.inner * sum(shape)


def nearest_shape(shape: tuple[int, int], density: float) -> MonarchShape:
    """The factors whose parameters are near ``density * K * N``.

    Among the numbers of blocks that come within 5 % of the request, or else come nearest to it, the one whose width
    between the factors, ``b i``, is nearest to ``min(K, N)``: for a square matrix that is the shape of the paper, and
    it keeps the rank high. One block would be a plain product of low rank; it is taken only where K and N have no
    other divisor in common. The realised density is ``parameters / (K N)``.

    Args:
      shape: ``(K, N)``.
      density: requested parameters over ``K N``, in (0, 1).
    """
    wanted = density * shape[0] * shape[1] / sum(shape)
    common = math.gcd(*shape)
    shapes = [
        MonarchShape(blocks, blocks * max(1, round(wanted / blocks)))
        for blocks in range(min(2, common), common + 1)
        if common % blocks == 0
    ]
    nearest = min(abs(each.inner - wanted) for each in shapes)
    near = [each for each in shapes if abs(each.inner - wanted) <= max(nearest, _TOLERANCE * wanted)]
    return min(near, key=lambda each: abs(math.log(each.blocks * each.inner / min(shape))))
