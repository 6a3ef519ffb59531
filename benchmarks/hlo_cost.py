"""Reads the cost that XLA:TPU writes into a program it compiled, and sums it over the parts of a train step.

XLA:TPU gives most instructions of an optimised program ``estimated_cycles``: what its own cost model expects of them,
transfers to and from HBM included. What it does not cost is charged here at the compiler's own rates (``Rates``):

- a Pallas call with a ``pl.CostEstimate``: the longer of its FLOPs and its bytes;
- splash attention, which has none: the FLOPs of the tiles that it visits, heads padded to whole lanes; its
  exponentials are not counted;
- gathers, scatters and sorts: their result, read and written once.

Everything else without an estimate (asynchronous copies, scalars, tuples) counts as nothing. The body of a loop counts
once a trip.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping

from sparsejax.planning.hlo_text import Instruction, Program, array_bytes, arrays, read_program, trips

# Part -> names of the scopes that make it up; the first part that an instruction's name matches has it.
PARTS: Mapping[str, re.Pattern[str]] = {
    "linears": re.compile(r"block_matmul|swiglu_matmul|dense_matmul"),
    "attention": re.compile(r"causal_attention"),
    "head and loss": re.compile(r"head_and_loss"),
    "optimizer": re.compile(r"optimizer"),
    "embedding": re.compile(r"embedding"),
}
# Norms, rotations, activations, residual sums, and copies that serve no part by name.
REST = "rest"

# Products of one score tile in each kernel of splash attention.
_SPLASH_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3}
_LANES = 128


@dataclasses.dataclass(frozen=True)
class Rates:
    """What the compiler expects of one device, from programs that do one thing only.

    Attributes:
      flops_per_cycle: of a large bfloat16 product.
      bytes_per_cycle: of a large copy, bytes read and bytes written.
    """

    flops_per_cycle: float
    bytes_per_cycle: float


def cycles_by_part(text: str, rates: Rates) -> dict[str, float]:
    """Estimated cycles of one run of a compiled program, by part; every part is there.

    Raises:
      ValueError: a loop whose number of trips is not in its condition, or a branch that depends on data.
    """
    program, entry = read_program(text)
    total = dict.fromkeys((*PARTS, REST), 0.0)

    def add(computation: str, times: int) -> None:
        by_name = {each.name: each for each in program[computation]}
        for each in by_name.values():
            if each.opcode == "while":
                (body,) = each.called("body")
                add(body, times * trips(program, each))
            elif each.opcode in ("call", "async-start"):
                for called in each.called("to_apply") or each.called("calls"):
                    add(called, times)
            elif each.opcode == "conditional":
                raise ValueError(f"{each.name}: which branch a run takes is not in the program")
            else:
                total[_part_of(program, by_name, each)] += times * cycles_of(each, rates)

    add(entry, 1)
    return total


def cycles_of(instruction: Instruction, rates: Rates) -> float:
    """Estimated cycles of one instruction that is no loop and no call; see the module."""
    estimate = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    if estimate:
        return float(estimate[1])
    if 'custom_call_target="tpu_custom_call"' in instruction.rest:
        return _kernel_cycles(instruction, rates)
    if instruction.opcode in ("fusion", "gather", "scatter", "sort"):
        return 2 * array_bytes(instruction.result) / rates.bytes_per_cycle
    return 0.0


def _kernel_cycles(kernel: Instruction, rates: Rates) -> float:
    stated = re.search(r'"cost_estimate":\{"flops":"(\d+)".*?"bytes_accessed":"(\d+)"', kernel.rest)
    if stated:
        return max(int(stated[1]) / rates.flops_per_cycle, int(stated[2]) / rates.bytes_per_cycle)
    products = [count for name, count in _SPLASH_PRODUCTS.items() if kernel.name.startswith(name)]
    if not products:
        raise ValueError(f"kernel {kernel.name}: no pl.CostEstimate, and no kernel of splash attention")
    # The first floating point operand is the queries, [heads, T, H], or [heads, H, T] in the kernel's second layout.
    operands = kernel.rest.partition("operand_layout_constraints=")[2]
    (heads, length, width) = next(shape for dtype, shape in arrays(operands) if dtype in ("bf16", "f32"))
    if r"q_layout\": 2" in kernel.rest:
        length, width = width, length
    (tile, *_) = map(int, re.findall(r'block_q\w*\\": (\d+)', kernel.rest))
    scores = heads * length * (length + tile) // 2
    lanes = math.ceil(width / _LANES) * _LANES
    return products[0] * 2 * scores * lanes / rates.flops_per_cycle


def _part_of(program: Program, by_name: Mapping[str, Instruction], instruction: Instruction) -> str:
    """The part of an instruction: by its name, by the names inside its fusion, or by what it reads first."""
    if own := _named_part(instruction.scope):
        return own
    inside = [_named_part(each.scope) for called in instruction.called("calls") for each in program[called]]
    if named := Counter(filter(None, inside)):
        return named.most_common(1)[0][0]
    if not instruction.scope and instruction.first_operand in by_name:
        return _part_of(program, by_name, by_name[instruction.first_operand])
    return REST


def _named_part(scope: str) -> str:
    return next((part for part, names in PARTS.items() if names.search(scope)), "")
