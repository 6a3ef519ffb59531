import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import pytest

from sparsejax.hardware.target import Target
from sparsejax.planning.hlo_text import arrays, read_program, trips
from sparsejax.training import programs, throughput
from tests.training.meshes import ONE, mesh_recipe
from tests.training.tiny import tiny_recipe


def test_a_cpu_has_no_mfu_and_a_transient_product_executes_the_zeros(tmp_path):
    recipe = tiny_recipe(tmp_path, model_implementation="transient")
    found = throughput.Throughput(recipe)
    assert found.row(3.0, 2.0) == {"executed_flops_per_second": 3.0, "theoretical_flops_per_second": 2.0}
    # Per token and layer: 4 weights of 16 x 16 and 3 of 16 x 32 make 2560 elements, half of them active.
    step = found.of_step(1)
    assert step.executed - step.theoretical == 3 * 2 * 2 * 2560 / 2


@pytest.mark.parametrize(("shape", "devices"), [(ONE, 1), ((2, 2, 2), 8)], ids=str)
def test_mfu_is_executed_flops_over_the_dense_peak_of_all_devices(tmp_path, shape, devices):
    recipe = dataclasses.replace(mesh_recipe(tmp_path, shape), target=Target("tpu", "v5e"))
    row = throughput.Throughput(recipe).row(1e14, 1e13)
    assert row["mfu"] == pytest.approx(1e14 / (devices * 197e12))


def test_a_loss_in_chunks_executes_the_head_once_more(tmp_path):
    # 64 tokens at once or in two halves; the head is 16 x 257.
    whole, chunked = (
        throughput.Throughput(tiny_recipe(tmp_path, train_loss_chunk=tokens)).of_step(1) for tokens in (64, 32)
    )
    assert chunked.executed - whole.executed == 2 * 16 * 257
    assert chunked.theoretical == whole.theoretical


def test_chunks_of_the_loss_are_those_of_a_device(tmp_path):
    # 16 rows of 16 tokens: alone they are two chunks of 128, on eight devices each has 32 tokens of its own.
    one, many = (
        throughput.Throughput(mesh_recipe(tmp_path, shape, train_loss_chunk=128)).of_step(1)
        for shape in (ONE, (2, 2, 2))
    )
    assert one.executed - many.executed == 2 * 32 * 257


def products(text):
    """FLOPs of all products of a compiled program, loops by their trips: read off its text."""
    program, entry = read_program(text)

    def of(name):
        total, results = 0, {each.name: each.result for each in program[name]}
        for each in program[name]:
            if each.opcode == "dot":
                ((_, out),), ((_, left),) = arrays(each.result), arrays(results[each.first_operand])
                dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)[1].split(",")
                total += 2 * math.prod(out) * math.prod(left[int(dim)] for dim in dims)
            if each.opcode == "while":
                total += trips(program, each) * sum(map(of, each.called("body")))
            total += sum(of(called) for kind in ("calls", "to_apply") for called in each.called(kind))
        return total

    return of(entry)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"train_microbatches": 2}, {"train_loss_chunk": 32}, {"topology_drop": "taylor", "topology_grow": "random"}],
)
def test_what_is_called_executed_are_the_products_of_the_compiled_programs(tmp_path, changes):
    changes = {"topology_grow": "gradient", "model_implementation": "transient", "model_layers": 3} | changes
    recipe = tiny_recipe(tmp_path, **changes)
    target_BT = jax.ShapeDtypeStruct((4, 16), jnp.int32)
    step = programs.train_step(recipe).lower(recipe.abstract, target_BT, recipe.rates).compile()
    score = programs.score_step(recipe).lower(recipe.abstract, target_BT).compile()
    assert products(step.as_text()) == 64 * throughput.step_flops(recipe, recipe.weights).executed
    assert products(score.as_text()) == 64 * throughput.score_flops(recipe)
