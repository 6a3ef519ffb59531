import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sparsejax.training.feed import Feed

BATCH_BT = np.arange(8 * 3, dtype=np.int32).reshape(8, 3)


def sharding(replica, fsdp, tensor):
    devices = np.array(jax.devices()[: replica * fsdp * tensor]).reshape(replica, fsdp, tensor)
    mesh = Mesh(devices, ("replica", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    return NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))


def test_one_device_takes_batches_as_they_are():
    feed = Feed(None, BATCH_BT.shape)
    assert (feed.parts, feed.of) == ((0,), 1)
    assert feed.place(BATCH_BT) is BATCH_BT


@pytest.mark.parametrize("axes", [(2, 2, 2), (1, 8, 1), (1, 1, 8), (4, 1, 1)])
def test_every_device_gets_the_rows_of_its_part(axes):
    cut = sharding(*axes)
    feed = Feed(cut, BATCH_BT.shape)
    assert feed.of == axes[0] * axes[1]
    assert feed.parts == tuple(range(feed.of))
    placed = feed.place(BATCH_BT)
    assert placed.sharding == cut
    assert np.array_equal(placed, BATCH_BT)
    for shard in placed.addressable_shards:
        assert np.array_equal(shard.data, BATCH_BT[shard.index])
