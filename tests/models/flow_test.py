import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.llama import get_config
from sparsejax.config import resolve
from sparsejax.models.flow import fade, stage, with_flow


def run_of(**topology):
    config = get_config("size=20m,method=sr_ste")
    config.topology.update(topology)
    return resolve(config)


def tree(layers=2):
    scalars = {"used": jnp.full((layers,), 4, jnp.int32), "faded": jnp.ones((layers,))}
    return {"layers": {"attention": {"q": dict(scalars)}, "mlp": {"up": dict(scalars)}}}


def test_mask_fades_of_a_worked_example():
    # Dense before step 10, N:M from step 20 on; halfway, 1 - 1/2 and exp(-5/2).
    steps = jnp.array([0, 9, 10, 15, 19, 20, 99])
    linear = [fade("mask_linear", step, 10, 20) for step in steps]
    np.testing.assert_allclose(linear, [1, 1, 1, 0.5, 0.1, 0, 0], rtol=1e-6)
    exponential = [fade("mask_exp", step, 10, 20) for step in steps]
    np.testing.assert_allclose(exponential, [1, 1, 1, 0.082085, 0.011109, 0, 0], rtol=1e-4)
    # Without a way, at once.
    assert [float(fade("mask_exp", jnp.int32(step), 5, 5)) for step in (4, 5)] == [1.0, 0.0]
    with pytest.raises(ValueError, match="flow='structure'"):
        fade("structure", steps[0], 10, 20)


def test_stages_of_worked_examples():
    def all_steps(used, group, start, end, steps=14):
        return [int(stage(used, group, jnp.int32(step), start, end)) for step in range(steps)]

    # 1:8 is 7:8, 4:8 and 2:8 for a third of the way each; dense before, 1:8 after.
    assert all_steps(1, 8, 2, 11) == [8, 8, 7, 7, 7, 4, 4, 4, 2, 2, 2, 1, 1, 1]
    # 2:4 has one stage between, 3:4 none.
    assert all_steps(2, 4, 2, 11) == [4, 4] + [3] * 9 + [2] * 3
    assert all_steps(3, 4, 2, 11) == [4, 4] + [3] * 12
    assert all_steps(1, 2, 0, 0, 3) == [1, 1, 1]
    # M / 4 of 6 would be 1.
    assert all_steps(1, 6, 0, 4, 6) == [5, 5, 3, 3, 1, 1]


def test_the_tree_follows_the_step_in_one_program():
    run = run_of(flow="mask_linear", flow_start=0.25, flow_end=0.75)
    advance = jax.jit(lambda step: with_flow(tree(), run, step, 8))
    for step, faded in ((0, 1.0), (2, 1.0), (3, 0.75), (5, 0.25), (6, 0.0), (8, 0.0)):
        after = advance(jnp.int32(step))
        for weight in (after["layers"]["attention"]["q"], after["layers"]["mlp"]["up"]):
            np.testing.assert_allclose(weight["faded"], [faded, faded], rtol=1e-6)
            np.testing.assert_array_equal(weight["used"], [2, 2])
    assert advance._cache_size() == 1
    structure = dataclasses.replace(run, topology=dataclasses.replace(run.topology, flow="structure"))
    after = with_flow(tree(), structure, jnp.int32(3), 8)["layers"]["mlp"]["up"]
    np.testing.assert_array_equal(after["used"], [3, 3])
    np.testing.assert_array_equal(after["faded"], [0, 0])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), tree()["layers"]["mlp"]["up"]
    )


def test_other_storages_come_back_as_they_are():
    packed = {"layers": {"mlp": {"up": {"rows": jnp.zeros((2, 3), jnp.int32)}}}}
    assert with_flow(packed, resolve(get_config("size=20m")), jnp.int32(1), 8) is packed
    assert with_flow({}, run_of(flow="none"), jnp.int32(1), 8) == {}
