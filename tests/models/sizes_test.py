import pytest

from sparsejax.models.accounting import dense_weights, parameters
from sparsejax.models.shapes import weight_shapes
from sparsejax.models.sizes import BLOCKS, SHARDS, SIZES, dense_with_active, legal, rounded_mlp, widened


def test_rounding_worked_examples():
    assert rounded_mlp(1376, (1, 1), 1) == 1376
    assert rounded_mlp(5461, (16, 16), 1) == 5472  # 342 blocks of 16
    assert rounded_mlp(5461, (16, 16), 8) == 5504  # 43 blocks in each of 8 shares
    assert rounded_mlp(5461, (1, 4), 2) == 5464
    assert rounded_mlp(24, (4, 6), 1) == 24  # a multiple of 4 (rows of down) and of 6 (columns of gate and up)
    assert rounded_mlp(25, (4, 6), 1) == 36


def test_published_totals():
    # SMET's own totals; the others follow from the same formula.
    totals = {}
    for name in ("130m", "1b"):
        shape = SIZES[name].shape(SIZES[name].mlp)
        counted = parameters(shape, dense_weights(shape))
        totals[name] = (counted.total, counted.maskable)
    assert totals == {"130m": (134_105_856, 84_934_656), "1b": (1_339_082_752, 1_207_910_400)}


def test_all_published_sizes_are_there():
    smet = ["60m", "130m", "240m", "350m", "1b", "3b", "7b"]
    scaling = ["20m", "40m", "60m-s", "120m", "240m-s", "480m", "960m", "1b92", "3b84"]
    assert [name for name, size in SIZES.items() if size.source == "arXiv 2606.00888"] == smet
    assert [name for name, size in SIZES.items() if size.source == "arXiv 2606.01155"] == scaling


@pytest.mark.parametrize("name", SIZES)
def test_every_legal_cut_divides_and_no_other_does(name):
    size = SIZES[name]
    assert size.hidden % size.heads == 0 and size.head_dim % 2 == 0
    cuts = {(cut.block, cut.shards): cut.mlp for cut in legal(size)}
    assert cuts[(1, 1), 1] == size.mlp
    for block in BLOCKS:
        for shards in SHARDS:
            mlp = rounded_mlp(size.mlp, block, shards)
            shapes = weight_shapes(size.shape(mlp)).values()
            divides = all(width % (side * shards) == 0 for shape in shapes for width in shape for side in block)
            assert divides == ((block, shards) in cuts)
            if divides:
                assert cuts[block, shards] == mlp >= size.mlp


def test_cuts_of_a_width_with_few_divisors():
    # 640 = 2^7 * 5: blocks of 128 leave 5 block columns, which no share count but 1 divides; 256 does not fit.
    large = [(cut.block[0], cut.shards) for cut in legal(SIZES["60m-s"]) if cut.block[0] >= 64]
    assert large == [(64, 1), (64, 2), (128, 1)]


def layer_weights(size):
    return sum(k * n for k, n in weight_shapes(size.shape(size.mlp)).values())


def test_scaled_widths_of_worked_examples():
    def widths(size):
        return (size.hidden, size.mlp, size.heads, size.layers, size.head_dim)

    # Twice and half the widths of 20m are a quarter and four times its weights.
    assert widths(widened(SIZES["20m"], 0.25, 16)) == (512, 1376, 8, 4, 64)
    assert widths(dense_with_active(SIZES["20m"], 0.25, 8)) == (128, 344, 2, 4, 64)
    # 4 sqrt(2) heads are 6; the MLP, 860.4 wide for exactly twice the weights, makes up for them.
    assert widths(widened(SIZES["20m"], 0.5, 4)) == (384, 860, 6, 4, 64)
    assert widths(widened(SIZES["20m"], 1.0, 8)) == widths(dense_with_active(SIZES["20m"], 1.0, 8))
    assert {widened(SIZES["20m"], 0.5, 16).name, dense_with_active(SIZES["20m"], 0.5, 16).name} == {
        "20m-wide",
        "20m-narrow",
    }


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("density", [0.5, 0.25, 0.125, 0.0625])
def test_scaled_widths_have_the_wanted_weights_and_fit(name, density):
    size = SIZES[name]
    for scaled, factor in ((widened(size, density, 16), 1 / density), (dense_with_active(size, density, 16), density)):
        assert layer_weights(scaled) / layer_weights(size) == pytest.approx(factor, rel=0.03)
        assert scaled.hidden % scaled.heads == 0 and scaled.mlp % 16 == 0
        assert (scaled.head_dim, scaled.layers) == (size.head_dim, size.layers)


def test_a_size_too_small_to_narrow_is_refused():
    with pytest.raises(ValueError, match="4 heads of 64: too few"):
        dense_with_active(SIZES["20m"], 0.01, 16)
