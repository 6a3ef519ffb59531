"""Reads the text of a compiled program: its computations, what they call, how often loops run, how large arrays are."""

from __future__ import annotations

import dataclasses
import math
import re

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$", re.DOTALL)
_STARTS_A_LINE = re.compile(r"\s*$|\}\s*$|HloModule|ENTRY |%?[\w.-]+ \(|\s+(ROOT )?%?[\w.-]+ = ")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


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


def trips(program: Program, loop: Instruction) -> int:
    """How often a ``while`` runs: what the compiler wrote beside it, or the one integer of its condition.

    JAX's scans count up to that integer from 0.

    Raises:
      ValueError: the compiler wrote nothing and the condition has no integer, or several.
    """
    if known := _KNOWN_TRIPS.search(loop.rest):
        return int(known[1])
    (condition,) = loop.called("condition")
    constants = [each for each in program[condition] if each.opcode == "constant" and each.result.startswith("s32[]")]
    limits = {int(each.rest.partition(")")[0]) for each in constants}
    if len(limits) != 1:
        raise ValueError(f"loop {loop.name}: its number of trips is not one of {sorted(limits)}")
    return limits.pop()


def arrays(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every array that a text names."""
    return [(dtype, tuple(map(int, filter(None, dims.split(","))))) for dtype, dims in _ARRAY.findall(text)]


def array_bytes(text: str) -> int:
    """Bytes of all arrays that a text names, without the padding of their layouts."""
    return sum(math.prod(shape) * itemsize(dtype) for dtype, shape in arrays(text))


def itemsize(dtype: str) -> int:
    """Bytes of an element: the digits of an HLO dtype are its bits, and ``pred`` is a byte."""
    return 1 if dtype == "pred" else max(int(re.sub(r"^[a-z]+", "", dtype).partition("e")[0] or 8) // 8, 1)
