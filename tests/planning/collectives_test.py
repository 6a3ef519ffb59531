"""Traffic read off compiled programs: a written example with known bytes, and a program that XLA compiles here."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sparsejax.planning.collectives import collectives
from sparsejax.planning.ring import Traffic, sent_bytes

MESH = {"replica": 2, "fsdp": 4, "tensor": 2}

# A loop of three trips with one collective of each way to write its devices; starts return what they read, too.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  ROOT %all-reduce.9 = f32[8]{0} all-reduce(%p), replica_groups=[8,2]<=[2,8]T(1,0), to_apply=%add
}

%first_part (p: bf16[2]) -> bf16[8] {
  ROOT %all-gather.2 = bf16[8]{0} all-gather(%p), channel_id=4, replica_groups={{0,2,4,6}}, frontend_attributes={chain_id="0"}
}

%second_part (p: bf16[2]) -> bf16[8] {
  ROOT %all-gather.3 = bf16[8]{0} all-gather(%p), channel_id=4, replica_groups={{0,2,4,6}}, frontend_attributes={chain_id="0"}
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %all-gather-start.1 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%x), replica_groups={{0,2,4,6},{1,3,5,7},{8,10,12,14},{9,11,13,15}}, dimensions={0}, use_global_device_ids=true
  %all-gather-done.1 = bf16[8,8]{1,0} all-gather-done(%all-gather-start.1)
  %reduce-scatter.1 = f32[2,8]{1,0} reduce-scatter(%y), replica_groups=[4,4]<=[2,4,2]T(0,2,1), dimensions={0}, to_apply=%add
  %fusion.1 = f32[8]{0} fusion(%z), kind=kCustom, calls=%fused
  %fusion.2 = bf16[8]{0} fusion(%z), kind=kCustom, calls=%first_part
  %fusion.3 = bf16[8]{0} fusion(%z), kind=kOutput, calls=%second_part
}

%condition (arg: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[] constant(3)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body
  %while.2 = (s32[], f32[8]{0}) while(%t), condition=%unbounded, body=%twice, backend_config={"known_trip_count":{"n":"2"}}
  %collective-permute-start.1 = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %all-reduce-start.1 = f32[] all-reduce-start(%w), replica_groups={}, to_apply=%add
  ROOT %all-reduce-done.1 = f32[] all-reduce-done(%all-reduce-start.1)
}

%twice (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %all-to-all.1 = f32[16]{0} all-to-all(%x), replica_groups={{0,1},{2,3}}, dimensions={0}
}
"""  # noqa: E501


def test_worked_example():
    assert collectives(PROGRAM, MESH) == (
        Traffic("reduce-scatter", ("fsdp",), 4, 3, 3 * 256, 3 * 192),
        Traffic("all-gather", ("fsdp",), 4, 6, 3 * (128 + 16), 3 * (96 + 12)),
        Traffic("all-reduce", ("replica",), 2, 3, 3 * 32, 3 * 32),
        Traffic("all-to-all", ("tensor",), 2, 2, 2 * 64, 2 * 32),
        Traffic("permute", ("tensor",), 2, 1, 16, 16),
        Traffic("all-reduce", ("replica", "fsdp", "tensor"), 16, 1, 4, 7),
    )


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-gather", 75), ("reduce-scatter", 75), ("all-to-all", 75), ("all-reduce", 150), ("permute", 100)],
)
def test_bytes_sent_round_a_ring(kind, sent):
    assert sent_bytes(kind, 4, 100) == sent


@pytest.mark.parametrize(
    ("groups", "axes", "group"),
    [
        ("mesh['replica'=2,'fsdp'=4,'tensor'=2] {'fsdp'}", ("fsdp",), 4),
        ("mesh['replica'=2,'fsdp'=4,'tensor'=2] {'replica','tensor'}", ("replica", "tensor"), 4),
        ("mesh['replica'=2,'fsdp'=4,'tensor'=2] {'fsdp':(2)2}", ("fsdp",), 2),
        ("mesh['all'=16] {'all':(1)2}", ("replica",), 2),
        ("mesh['a'=1,'b'=2,'c'=8], device_ids=([8,2]T(1,0)) {'b'}", ("tensor",), 2),
        ("mesh['a'=8,'b'=2], device_ids=(0,8,1,9,2,10,3,11,4,12,5,13,6,14,7,15) {'b'}", ("replica",), 2),
        ("[4,4]<=[2,4,2]T(0,2,1)", ("fsdp",), 4),
        ("[2,8]<=[16]", ("fsdp", "tensor"), 8),
        ("{{0,1},{2,3},{4,5},{6,7},{8,9},{10,11},{12,13},{14,15}}", ("tensor",), 2),
    ],
)
def test_every_way_to_write_the_devices(groups, axes, group):
    gather = f"  ROOT %g = f32[16]{{0}} all-gather(%x), replica_groups={groups}, dimensions={{0}}"
    (found,) = collectives(f"ENTRY %main (x: f32[8]) -> f32[16] {{\n{gather}\n}}", MESH)
    assert (found.axes, found.group, found.payload) == (axes, group, 64)


def test_a_compiled_program():
    mesh = jax.make_mesh((2, 2, 2), ("replica", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)

    @partial(jax.shard_map, mesh=mesh, in_specs=(P(None, "fsdp"), P()), out_specs=P(), check_vma=False)
    def program(weights_LD, x_D):
        def layer(x_D, weight_d):
            weight_D = jax.lax.all_gather(weight_d, "fsdp", tiled=True)
            return jax.lax.psum(jnp.sin(x_D * weight_D), "tensor"), None

        return jax.lax.psum(jax.lax.scan(layer, x_D, weights_LD)[0], ("replica", "fsdp"))

    arguments = jax.ShapeDtypeStruct((5, 32), np.float32), jax.ShapeDtypeStruct((32,), np.float32)
    text = jax.jit(program).lower(*arguments).compile().as_text()
    assert set(collectives(text, dict(mesh.shape))) == {
        Traffic("all-gather", ("fsdp",), 2, 5, 5 * 128, 5 * 64),
        Traffic("all-reduce", ("tensor",), 2, 5, 5 * 128, 5 * 128),
        Traffic("all-reduce", ("replica", "fsdp"), 4, 1, 128, 192),
    }


def test_a_program_without_collectives_sends_nothing():
    text = jax.jit(jnp.sin).lower(jnp.zeros(8)).compile().as_text()
    assert collectives(text, {"replica": 1, "fsdp": 1, "tensor": 1}) == ()
