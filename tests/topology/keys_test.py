"""Random keys of the topology."""

import itertools

import jax
import numpy as np

from sparsejax.topology.keys import share_key, weight_key

KINDS = ["attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down"]


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_every_part_of_the_name_of_a_key_changes_it():
    cases = list(itertools.product((0, 1), (0, 100), KINDS, (0, 1), (0, 1)))
    found = {bits(share_key(weight_key(seed, step, kind, layer), share)) for seed, step, kind, layer, share in cases}
    assert len(found) == len(cases)


def test_equal_inputs_give_equal_keys_in_and_out_of_a_program():
    plain = [bits(share_key(weight_key(3, 100, "mlp.up", layer), 1)) for layer in range(3)]
    assert plain == [bits(share_key(weight_key(3, 100, "mlp.up", layer), 1)) for layer in range(3)]
    stacked = jax.jit(jax.vmap(lambda layer, step: share_key(weight_key(3, step, "mlp.up", layer), 1), (0, None)))
    assert [bits(key) for key in stacked(np.arange(3), 100)] == plain


def test_golden_key():
    # A key is part of what a seed means: a change here changes the topology of every published seed.
    assert bits(share_key(weight_key(0, 100, "attention.q", 2), 1)) == (1246359266, 3747193253)
