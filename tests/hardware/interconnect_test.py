"""How fast a group of devices is: worked examples on small tori, and the table against the chips it is for."""

import pytest

from sparsejax.hardware.chips import CHIPS
from sparsejax.hardware.interconnect import INTERCONNECTS, Place, group_bandwidth, interconnect_of

V5E, V5P, TPU7X, H100 = map(interconnect_of, ("v5e", "v5p", "tpu7x", "h100"))


def chips(*coordinates, cores=1, slice=0):
    return [Place(slice, chip, core) for chip in coordinates for core in range(cores)]


def row(length, step=1, width=2):
    return chips(*((x, *(0,) * (width - 1)) for x in range(0, length, step)))


def test_every_chip_has_links():
    assert [links.chip for links in INTERCONNECTS] == [chip.name for chip in CHIPS]


def test_one_dimension_is_a_ring_only_where_it_is_closed():
    assert group_bandwidth(V5E, (16, 16), row(16)) == 2 * 50e9
    assert group_bandwidth(V5E, (16, 16), row(4)) == 50e9  # part of a dimension
    assert group_bandwidth(V5E, (4, 4), row(4)) == 50e9  # a small slice of v5e has no closing link
    assert group_bandwidth(V5P, (4, 4, 4), row(4, width=3)) == 2 * 100e9  # a cube of v5p has


def test_every_dimension_of_a_grid_helps():
    assert group_bandwidth(V5E, (4, 4), chips((0, 0), (0, 1), (1, 0), (1, 1))) == 2 * 50e9
    plane = chips(*((x, y, 0) for x in range(4) for y in range(4)))
    assert group_bandwidth(V5P, (4, 4, 8), plane) == 4 * 100e9


def test_groups_that_interleave_share_links():
    assert group_bandwidth(V5E, (16, 16), row(16, step=4)) == 2 * 50e9 / 4
    assert group_bandwidth(V5E, (8, 8), row(8, step=2)) == 50e9 / 2


def test_what_is_no_grid_has_one_link():
    assert group_bandwidth(V5P, (4, 4, 4), chips((0, 0, 0), (1, 0, 0), (0, 1, 0))) == 100e9
    assert group_bandwidth(V5P, (4, 4, 4), chips((0, 0, 0), (1, 0, 0), (3, 0, 0))) == 100e9


def test_two_devices_of_one_chip_are_nearer_than_two_chips():
    assert group_bandwidth(TPU7X, (2, 2, 1), chips((0, 0, 0), cores=2)) == 600e9
    # Both devices of a chip send over its links, so each has half of them.
    assert group_bandwidth(TPU7X, (2, 2, 1), chips((0, 0, 0), (1, 0, 0), cores=2)) == 50e9


def test_slices_are_joined_by_the_network():
    pair = chips((0, 0)) + chips((0, 0), slice=1)
    assert group_bandwidth(V5E, (16, 16), pair) == 3.125e9
    four = chips((0, 0), (1, 0)) + chips((0, 0), (1, 0), slice=1)
    assert group_bandwidth(V5E, (16, 16), four) == 2 * 3.125e9


def test_gpus_are_as_fast_as_the_switch_of_their_node_and_the_cards_of_theirs():
    inside = [Place(0, (), core) for core in range(8)]
    assert group_bandwidth(H100, (), inside) == 450e9
    assert group_bandwidth(H100, (), [Place(node, (), 0) for node in range(4)]) == 50e9
    assert group_bandwidth(H100, (), inside + [Place(1, (), core) for core in range(8)]) == 8 * 50e9


@pytest.mark.parametrize("links", INTERCONNECTS, ids=lambda links: links.chip)
def test_units_are_the_ones_documented(links):
    """A figure in Gbit/s or of both directions falls outside these ranges."""
    assert 3e10 <= links.link_bandwidth <= 9e11
    assert 3e9 <= links.network_bandwidth <= 5e10
    assert links.source and (links.dimensions in (2, 3)) == (links.ring > 0)
