import pytest

from sparsejax.models.monarch_shape import MonarchShape, nearest_shape


def test_shapes_of_worked_examples():
    # Square, as in the paper: 2 / b of the parameters, and the width between the factors is that of the matrix.
    assert nearest_shape((256, 256), 0.5) == MonarchShape(blocks=4, inner=64)
    assert nearest_shape((256, 256), 0.25) == MonarchShape(blocks=8, inner=32)
    # sqrt(n) blocks are the sparsest that keep it; below, the width shrinks.
    assert nearest_shape((256, 256), 0.125) == MonarchShape(blocks=16, inner=16)
    assert nearest_shape((256, 256), 0.0625) == MonarchShape(blocks=8, inner=8)
    # Rectangular: 0.25 * 256 * 688 / 944 = 46.6, nearest multiple of 4.
    assert nearest_shape((256, 688), 0.25) == MonarchShape(blocks=4, inner=48)
    # Nothing in common but 1: a product of two dense factors.
    assert nearest_shape((15, 8), 0.5) == MonarchShape(blocks=1, inner=3)


@pytest.mark.parametrize("shape", [(256, 688), (512, 512), (512, 1376), (768, 2048), (2048, 5472), (5472, 2048)])
@pytest.mark.parametrize("density", [0.5, 0.25, 0.125, 0.0625])
def test_realised_density_is_near_and_the_factors_fit(shape, density):
    factors = nearest_shape(shape, density)
    assert factors.parameters(shape) / (shape[0] * shape[1]) == pytest.approx(density, rel=0.05)
    assert shape[0] % factors.blocks == shape[1] % factors.blocks == factors.inner % factors.blocks == 0
