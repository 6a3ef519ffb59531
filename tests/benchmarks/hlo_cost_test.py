"""What is read off the text of a compiled TPU program: a worked example with known cycles."""

import pytest

from benchmarks.hlo_cost import PARTS, Rates, cycles_by_part

RATES = Rates(flops_per_cycle=10.0, bytes_per_cycle=4.0)

# A step with one loop of three trips. The text is as XLA:TPU writes it, cut down to what matters; metadata of kernels
# may break lines.
PROGRAM = r"""HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%fused_residual (param_0: bf16[4,8]) -> bf16[4,8] {
  ROOT %add.1 = bf16[4,8]{1,0} add(%param_0, %param_0), metadata={op_name="jit(step)/while/body/add"}
}

%fused_unnamed (param_0: bf16[4,8]) -> bf16[4,8] {
  %mul.1 = bf16[4,8]{1,0} multiply(%param_0, %param_0), metadata={op_name="jit(step)/transpose(jvp(embedding))/mul"}
  ROOT %mul.2 = bf16[4,8]{1,0} multiply(%mul.1, %mul.1)
}

%body (arg: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %arg = (s32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %get.1 = bf16[4,8]{1,0} get-tuple-element(%arg), index=1
  %fusion.1 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} fusion(%get.1), kind=kLoop, calls=%fused_residual, metadata={op_name="jit(step)/while/body/add"}, backend_config={"window_config":{"estimated_cycles":"7"}}
  %block_matmul_pallas_tpu.2 = bf16[4,8]{1,0} custom-call(%fusion.1), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/while/body/block_matmul_pallas_tpu@v5e/pallas_call"}, backend_config={"custom_call_config":{"body":"TUzvUg","cost_estimate":{"flops":"400","transcendentals":"0","bytes_accessed":"80"}}}
  %splash_mha_dq_no_residuals.3 = (f32[8,4]{1,0}, bf16[2,8,4]{2,1,0}) custom-call(%block_matmul_pallas_tpu.2), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,1,1]{2,1,0}, bf16[2,8,4]{2,1,0}, bf16[1,8,4]{2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\"block_q_dq\": 4, \"block_kv_dq\": 4}"
}}, metadata={op_name="jit(step)/transpose(jvp(causal_attention))/splash_mha_dq/pallas_call"}, backend_config={"custom_call_config":{"body":"TUzvUg"}}
  %get.2 = bf16[2,8,4]{2,1,0} get-tuple-element(%splash_mha_dq_no_residuals.3), index=1
  %copy.4 = bf16[2,8,4]{2,0,1} copy(%get.2), backend_config={"window_config":{"estimated_cycles":"9"}}
  %copy-start.5 = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[]) copy-start(%get.1)
  ROOT %tuple.1 = (s32[], bf16[4,8]{1,0}) tuple(%get.1, %copy.4)
}

%condition (arg.1: (s32[], bf16[4,8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
  %arg.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %get.3 = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt.1 = pred[] compare(%get.3, %constant.1), direction=LT
}

ENTRY %main.7 (param: f32[4,8]) -> f32[4,8] {
  %param = f32[4,8]{1,0} parameter(0)
  %scatter_fusion = f32[4,8]{1,0} fusion(%param), kind=kCustom, calls=%fused_residual, metadata={op_name="jit(step)/optimizer/scatter"}
  %fusion.9 = bf16[4,8]{1,0} fusion(%param), kind=kLoop, calls=%fused_unnamed, backend_config={"window_config":{"estimated_cycles":"11"}}
  %while.1 = (s32[], bf16[4,8]{1,0}) while(%tuple.2), condition=%condition, body=%body, metadata={op_name="jit(step)/jvp()/while"}
  ROOT %fusion.10 = (f32[4,8]{1,0}, f32[]) fusion(%param), kind=kOutput, calls=%fused_residual, metadata={op_name="jit(step)/jvp(head_and_loss)/dot_general"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
}
"""  # noqa: E501


def test_worked_example():
    parts = cycles_by_part(PROGRAM, RATES)
    assert list(parts) == [*PARTS, "rest"]
    assert parts["rest"] == 3 * 7
    assert parts["linears"] == 3 * 40  # 400 FLOPs take longer than 80 bytes
    # 2 heads see 8 * (8 + 4) / 2 of the 8 x 8 scores, in 3 products of 128 lanes; and the copy of its result.
    assert parts["attention"] == pytest.approx(3 * (3 * 2 * (2 * 48) * 128 / 10 + 9))
    assert parts["head and loss"] == 1000
    assert parts["optimizer"] == 2 * 128 / 4  # no estimate: 32 floats read and written
    assert parts["embedding"] == 11  # named inside the fusion only


def test_queries_may_have_the_sequence_last():
    turned = PROGRAM.replace("bf16[2,8,4]{2,1,0}, bf16[1,8,4]{2,1,0}}", "bf16[2,4,8]{2,1,0}, bf16[1,4,8]{2,1,0}}")
    turned = turned.replace(r"\"block_kv_dq\": 4", r"\"block_kv_dq\": 4, \"q_layout\": 2")
    assert turned.count("q_layout") == 1
    assert cycles_by_part(turned, RATES) == cycles_by_part(PROGRAM, RATES)


def test_a_kernel_that_waits_for_memory_costs_its_bytes():
    slow = PROGRAM.replace('"bytes_accessed":"80"', '"bytes_accessed":"4000"')
    assert cycles_by_part(slow, RATES)["linears"] == 3 * 1000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("s32[]{:T(128)} constant(3)", "s32[]{:T(128)} parameter(1)", r"loop while\.1: .* not one of \[\]"),
        ("%splash_mha_dq_no_residuals.3 =", "%mystery.3 =", r"kernel mystery\.3: no pl\.CostEstimate"),
        ("%copy.4 = bf16[2,8,4]{2,0,1} copy(", "%copy.4 = bf16[2,8,4]{2,0,1} conditional(", r"copy\.4: which branch"),
        ("ENTRY ", "", "no entry computation"),
    ],
)
def test_what_cannot_be_costed_is_an_error(old, new, message):
    assert old in PROGRAM
    with pytest.raises(ValueError, match=message):
        cycles_by_part(PROGRAM.replace(old, new), RATES)
