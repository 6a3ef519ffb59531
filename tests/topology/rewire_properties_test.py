"""Rewiring for every shape of block, share, cut and balance, against the rule of the spec written as loops."""

import functools
import itertools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sparsejax.topology.blocks import BlockGrid, BlockSparse, active_mask, index_from_positions, positions_of, validate
from sparsejax.topology.rewire import drop_count, move_values, rewire

BLOCKS = [((8, 8), (1, 1)), ((8, 32), (1, 4)), ((32, 16), (4, 4)), ((16, 64), (2, 8))]
CUTS = [(1, "columns"), (2, "columns"), (4, "rows")]
GRIDS = [
    BlockGrid(shape, block, shards, axis, balance)
    for (shape, block), (shards, axis), balance in itertools.product(BLOCKS, CUTS, ("none", "column"))
]
# Every grid is a program to compile, so the other two cuts are tried at one block only.
GRIDS += [
    BlockGrid((16, 64), (2, 8), shards, axis, balance)
    for (shards, axis), balance in itertools.product([(2, "rows"), (4, "columns")], ("none", "column"))
]
LAYERS = 2
# From almost nothing to almost everything: with 64 places and at least 8 blocks a share, all but the first move blocks.
RATES = [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]

traced = []


@functools.partial(jax.jit, static_argnames=("grid", "regrow"))
def rewire_layers(grid, position_LSc, values, drop, grow, count, regrow):
    """Positions before -> rewiring, positions, activity and values after, every layer on its own."""
    traced.append(grid)

    def one(position_Sc, values, drop, grow):
        rewiring = rewire(index_from_positions(position_Sc, grid), grid, drop, grow, count, regrow)
        position_Sc, active = positions_of(rewiring.index, grid), active_mask(rewiring.index, grid)
        return rewiring, position_Sc, active, move_values(values, rewiring)

    return jax.vmap(one)(position_LSc, values, drop, grow)


def name_of(grid):
    return f"{grid.block}-{grid.shards}{grid.shard_axis}-{grid.balance}"


def random_positions(rng, grid, per_share, free):
    """A random topology drawn in numpy, [S, c]: exact counts, a static count a column under balance."""
    shares = []
    for _ in range(grid.shards):
        if grid.balance == "column":
            counts = grid.column_counts(per_share)
            picked = [col * grid.share_rows + rng.permutation(grid.share_rows)[:n] for col, n in enumerate(counts)]
            active = np.concatenate(picked)
        else:
            active = rng.permutation(grid.cells_per_share)[:per_share]
        shares.append(np.append(np.sort(active), np.full(free, grid.cells_per_share)))
    return np.stack(shares)


def plain_rewire(grid, active, drop, grow, count, regrow):
    """One share by the rule of the spec: lists over its places in storage order -> (kept, grown) sets of places."""
    column = [place // grid.share_rows for place in range(len(active))]
    room, lost = [0] * grid.share_columns, [0] * grid.share_columns
    for place, is_active in enumerate(active):
        room[column[place]] += not is_active
    kept = {place for place, is_active in enumerate(active) if is_active}
    for place in sorted(kept, key=lambda p: (drop[p], p)):
        stuck = grid.balance == "column" and not regrow and lost[column[place]] == room[column[place]]
        if sum(lost) < count and not stuck:
            kept.remove(place)
            lost[column[place]] += 1
    grown, gained = set(), [0] * grid.share_columns
    empty = [place for place, is_active in enumerate(active) if place not in kept and (regrow or not is_active)]
    for place in sorted(empty, key=lambda p: (-grow[p], p)):
        col = column[place]
        if sum(gained) < sum(lost) and (grid.balance == "none" or gained[col] < lost[col]):
            grown.add(place)
            gained[col] += 1
    return kept, grown


def check_share(grid, before, after, old_slot, drop, grow, count, regrow):
    """Compare one share of one layer: [c] positions before and after and the map, with the loops above."""
    m = grid.cells_per_share
    active, score = [False] * m, [0] * m
    slot_of = {int(place): slot for slot, place in enumerate(before) if place < m}
    for place, slot in slot_of.items():
        active[place], score[place] = True, int(drop[slot])
    kept, grown = plain_rewire(grid, active, score, grow.tolist(), count, regrow)
    expected = sorted(kept | grown)
    assert after.tolist() == expected + [m] * (len(before) - len(expected))
    assert old_slot.tolist() == [slot_of[p] if p in kept else -1 for p in expected] + [-1] * (
        len(before) - len(expected)
    )
    assert len(expected) == len(slot_of), "the count of the share moved"
    assert len(slot_of) - len(kept) == len(grown) == count, "not exactly `count` blocks changed"
    if not regrow:
        assert not grown & set(slot_of), "grown where it was active before the update"
    if grid.balance == "column":
        columns = np.bincount(after // grid.share_rows, minlength=grid.share_columns)
        np.testing.assert_array_equal(columns, grid.column_counts(len(expected)))


def run_rates(grid, regrow):
    rng = np.random.default_rng(GRIDS.index(grid))
    free = 0 if grid.balance == "column" else 1
    per_share = max(8, grid.cells_per_share // 3) if grid.cells_per_share > 16 else 7
    position = np.stack([random_positions(rng, grid, per_share, free) for _ in range(LAYERS)])
    (slots, m) = (position.shape[1] * position.shape[2], grid.cells_per_share)
    values = rng.normal(size=(LAYERS, slots, *grid.block)).astype(np.float32)
    values[(position == m).reshape(LAYERS, slots)] = 0
    for rate in RATES:
        count = drop_count(rate, grid, per_share, regrow)
        assert count >= 1 or rate < 0.1, "a weight that never rewires"
        # Few distinct scores, so that ties are everywhere.
        drop = rng.integers(0, 6, (LAYERS, slots), dtype=np.int32)
        grow = rng.integers(0, 9, (LAYERS, grid.shards, m), dtype=np.int32)
        out = rewire_layers(grid, position, values, drop, grow, count, regrow)
        rewiring, after, active, moved = jax.tree.map(np.asarray, out)
        old_slot = rewiring.old_slot
        by_share = (LAYERS, grid.shards, -1)
        first = (np.arange(grid.shards) * position.shape[2])[:, None]
        local = np.where(old_slot.reshape(by_share) < 0, -1, old_slot.reshape(by_share) - first)
        for at in itertools.product(range(LAYERS), range(grid.shards)):
            drops = drop.reshape(by_share)[at]
            check_share(grid, position[at], after[at], local[at], drops, grow[at], count, regrow)
        expected = np.take_along_axis(values, np.maximum(old_slot, 0)[..., None, None], axis=1)
        expected[old_slot < 0] = 0
        np.testing.assert_array_equal(moved.view(np.int32), expected.view(np.int32))
        position, values = after, moved
        # Give the grown blocks a value again, so that the next round can lose it.
        values = np.where(active[..., None, None] & (values == 0), np.float32(0.5), values)
    return BlockSparse(*jax.tree.map(lambda leaf: leaf[0], (values, rewiring.index)), grid)


@pytest.mark.parametrize("grid", GRIDS, ids=name_of)
def test_every_weight_rewires_by_the_rule_at_every_rate(grid):
    already = len(traced)
    first_layer = run_rates(grid, regrow=False)
    assert len(traced) == already + 1, "the number dropped must not be part of the program"
    validate(first_layer)


@pytest.mark.parametrize("grid", [g for g in GRIDS if g.shards == 2 and g.block == (2, 8)], ids=name_of)
def test_the_rule_holds_where_dropped_places_may_regrow(grid):
    # run_rates asserts at every rate; the result after all of them must still be a whole weight.
    assert run_rates(grid, regrow=True) is not None


def test_stacked_layers_rewire_as_each_alone():
    grid = BlockGrid((16, 64), (2, 8), 2, "rows")
    rng = np.random.default_rng(0)
    position = np.stack([random_positions(rng, grid, 12, 0) for _ in range(LAYERS)])
    values = rng.normal(size=(LAYERS, 24, 2, 8)).astype(np.float32)
    drop, grow = rng.normal(size=(LAYERS, 24)), rng.normal(size=(LAYERS, 2, 32))
    both = rewire_layers(grid, position, values, drop, grow, 5, False)
    for layer in range(LAYERS):
        part = slice(layer, layer + 1)
        alone = rewire_layers(grid, position[part], values[part], drop[part], grow[part], 5, False)
        jax.tree.map(lambda a, b, at=part: np.testing.assert_array_equal(a, b[at]), alone, both)


@pytest.mark.parametrize("devices", [n for n in (2, 4, 8) if n <= jax.device_count()])
def test_rewiring_is_the_same_on_any_mesh(devices):
    # Eight shares over the devices: float scores are compared, never added, so nothing can differ.
    grid = BlockGrid((16, 64), (2, 8), 8, "columns")
    rng = np.random.default_rng(1)
    position = np.stack([random_positions(rng, grid, 4, 1) for _ in range(LAYERS)])
    values = rng.normal(size=(LAYERS, 40, 2, 8)).astype(np.float32)
    drop = rng.normal(size=(LAYERS, 40)).astype(np.float32)
    grow = rng.normal(size=(LAYERS, 8, 8)).astype(np.float32)
    mesh = jax.make_mesh((devices,), ("tensor",), (AxisType.Auto,), devices=jax.devices()[:devices])
    second_axis = NamedSharding(mesh, PartitionSpec(None, "tensor"))
    arrays = (position, values, drop, grow)
    on_one = rewire_layers(grid, *arrays, 2, False)
    on_many = rewire_layers(grid, *jax.device_put(arrays, second_axis), 2, False)
    jax.tree.map(np.testing.assert_array_equal, on_many, on_one)
