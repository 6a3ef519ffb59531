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

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$", re.DOTALL)
_STARTS_A_LINE = re.compile(r"\s*$|\}\s*$|HloModule|ENTRY |%?[\w.-]+ \(|\s+(ROOT )?%?[\w.-]+ = ")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Rates:
    """What the compiler expects of one device, from programs that do one thing only.

    Attributes:
      flops_per_cycle: of a large bfloat16 product.
      bytes_per_cycle: of a large copy, bytes read and bytes written.
    """

    flops_per_cycle: float
    bytes_per_cycle: float


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program: its name, the type of its result, its operation, and all that follows."""

    name: str
    result: str
    opcode: str
    rest: str

    @property
    def scope(self) -> str:
        """The name that JAX gave the operation, scopes first; empty if the compiler made it up."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def first_operand(self) -> str:
        """Name of the first operand; empty if there is none."""
        found = re.match(r"%([\w.-]+)", self.rest)
        return found[1] if found else ""

    def called(self, attribute: str) -> list[str]:
        """Computations that ``attribute`` names: ``body``, ``condition``, ``calls``, ``to_apply``, ..."""
        found = re.search(rf"\b{attribute}=\{{?(%?[\w.-]+(?:, *%[\w.-]+)*)", self.rest)
        return [name.strip().removeprefix("%") for name in found[1].split(",")] if found else []


Program = dict[str, list[Instruction]]


def read_program(text: str) -> tuple[Program, str]:
    """The computations of ``compiled.as_text()`` by name, and the name of the entry.

    Raises:
      ValueError: the text has no entry computation.
    """
    lines: list[str] = []
    for line in text.splitlines():
        if lines and not _STARTS_A_LINE.match(line):
            lines[-1] += line  # metadata of a kernel may hold line breaks
        else:
            lines.append(line)
    program: Program = {}
    entry, instructions = "", []
    for line in lines:
        if head := _COMPUTATION.match(line):
            instructions = program[head[2]] = []
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            instructions.append(Instruction(*found.groups()))
    if not entry:
        raise ValueError("no entry computation: not the text of a compiled program")
    return program, entry


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


def trips(program: Program, loop: Instruction) -> int:
    """How often a ``while`` runs: the one integer of its condition, which JAX's scans count up to from 0.

    Raises:
      ValueError: the condition has none, or several.
    """
    (condition,) = loop.called("condition")
    constants = [each for each in program[condition] if each.opcode == "constant" and each.result.startswith("s32[]")]
    limits = {int(each.rest.partition(")")[0]) for each in constants}
    if len(limits) != 1:
        raise ValueError(f"loop {loop.name}: its number of trips is not one of {sorted(limits)}")
    return limits.pop()


def cycles_of(instruction: Instruction, rates: Rates) -> float:
    """Estimated cycles of one instruction that is no loop and no call; see the module."""
    estimate = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    if estimate:
        return float(estimate[1])
    if 'custom_call_target="tpu_custom_call"' in instruction.rest:
        return _kernel_cycles(instruction, rates)
    if instruction.opcode in ("fusion", "gather", "scatter", "sort"):
        return 2 * _array_bytes(instruction.result) / rates.bytes_per_cycle
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
    (heads, length, width) = next(shape for dtype, shape in _arrays(operands) if dtype in ("bf16", "f32"))
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


def _arrays(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every array that a text names."""
    return [(dtype, tuple(map(int, filter(None, dims.split(","))))) for dtype, dims in _ARRAY.findall(text)]


def _array_bytes(text: str) -> int:
    return sum(math.prod(shape) * _itemsize(dtype) for dtype, shape in _arrays(text))


def _itemsize(dtype: str) -> int:
    """Bytes of an element: the digits of an HLO dtype are its bits, and ``pred`` is a byte."""
    return 1 if dtype == "pred" else max(int(re.sub(r"^[a-z]+", "", dtype).partition("e")[0] or 8) // 8, 1)
