"""What the devices of a program send each other, read off its compiled text.

A loop's collectives count once a trip. What payload and sent mean is said in ``ring.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from sparsejax.planning.hlo_text import Instruction, Program, array_bytes, read_program, trips
from sparsejax.planning.ring import Traffic, sent_bytes

# Operation -> the name it has here. A program has each of them whole, or as a start and an end.
_KINDS = {
    "all-gather": "all-gather",
    "reduce-scatter": "reduce-scatter",
    "all-reduce": "all-reduce",
    "collective-permute": "permute",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
}

# Handles of asynchronous operations, which are no data.
_HANDLE = re.compile(r"u32\[\](?:\{[^}]*\})?")
_GROUPS = re.compile(
    r"replica_groups=(\{\{[\d,{} ]*\}\}|\{\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
    r"|mesh\[[^\]]*\](?:, *device_ids=\((?:[^()]|\([^()]*\))*\))? *\{[^}]*\})"
)
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
# The order of a mesh's devices, as one transposition of their numbers, or as a list.
_ORDER = re.compile(r"device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d, ]+))\)")
# A part of an axis of a mesh: 'fsdp':(2)4 is the 4 that follow a leading 2.
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")
_CHAIN = re.compile(r'channel_id=\d+.*chain_id="\d+"')
_PAIRS = re.compile(r"source_target_pairs=\{([\d,{} ]*)\}")


def collectives(text: str, mesh: Mapping[str, int]) -> tuple[Traffic, ...]:
    """All traffic of ``compiled.as_text()``, largest first.

    Args:
      text: of a program that was compiled for a mesh.
      mesh: name and size of every mesh axis, in the order of the mesh.

    Loops whose number of trips depends on data count once. So does each branch of a conditional.
    """
    program, entry = read_program(text)
    total: dict[tuple[str, tuple[str, ...], int], list[int]] = {}
    for instruction, times in _executed(program, entry, 1):
        kind = _KINDS[instruction.opcode.removesuffix("-start")]
        members = _members(instruction, mesh)
        if members.size < 2:
            continue
        group = 2 if kind == "permute" else members.shape[1]
        payload = _payload(instruction, kind, group)
        cell = total.setdefault((kind, _axes(members, mesh), group), [0, 0, 0])
        for place, amount in enumerate((1, payload, sent_bytes(kind, group, payload))):
            cell[place] += times * amount
    found = [Traffic(kind, axes, group, *cell) for (kind, axes, group), cell in total.items()]
    return tuple(sorted(found, key=lambda each: (-each.sent, each.kind, each.axes)))


def _executed(program: Program, computation: str, times: int) -> Iterator[tuple[Instruction, int]]:
    """Every collective below a computation, with how often it runs.

    XLA:TPU cuts one collective into a chain of parts, fused with the products behind which it hides; each part names
    the whole of it. The parts of a chain stand in one computation, and only the first counts.
    """
    chains: set[str] = set()
    for each in program[computation]:
        if each.opcode.removesuffix("-start") in _KINDS:
            yield each, times
        elif each.opcode == "while":
            (body,) = each.called("body")
            yield from _executed(program, body, times * _trips_or_once(program, each))
        elif each.opcode in ("fusion", "call", "async-start", "conditional"):
            for attribute in ("calls", "to_apply", "branch_computations", "true_computation", "false_computation"):
                for called in each.called(attribute):
                    for found, often in _executed(program, called, times):
                        if chain := _CHAIN.search(found.rest):
                            if chain[0] in chains:
                                continue
                            chains.add(chain[0])
                        yield found, often


def _trips_or_once(program: Program, loop: Instruction) -> int:
    try:
        return trips(program, loop)
    except ValueError:
        return 1


def _members(instruction: Instruction, mesh: Mapping[str, int]) -> np.ndarray:
    """Groups of device numbers, ``[groups, devices]``; pairs for a permutation."""
    if pairs := _PAIRS.search(instruction.rest):
        return np.array(re.findall(r"\d+", pairs[1]), dtype=np.int64).reshape(-1, 2)
    found = _GROUPS.search(instruction.rest)
    if not found or found[1] == "{}":
        return np.arange(np.prod(list(mesh.values()), dtype=np.int64))[None]
    if found[1].startswith("{"):
        return np.array([re.findall(r"\d+", group) for group in found[1][1:-1].split("},")], dtype=np.int64)
    if found[1].startswith("mesh"):
        return _mesh_groups(found[1])
    found = _IOTA.fullmatch(found[1])
    assert found is not None
    return _iota(found[2], found[3]).reshape(_numbers(found[1]))


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text or "")]


def _iota(source: str, order: str | None) -> np.ndarray:
    """All device numbers in the shape ``source``, its axes in ``order``."""
    shape = _numbers(source)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return numbers.transpose(_numbers(order)) if order else numbers


def _mesh_groups(text: str) -> np.ndarray:
    """Groups that are written as axes of a mesh: ``mesh['a'=2,'b'=4] {'b'}``."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text)}
    numbers = np.arange(np.prod(list(sizes.values()), dtype=np.int64))
    if ordered := _ORDER.search(text):
        numbers = np.array(_numbers(ordered[3])) if ordered[3] else _iota(ordered[1], ordered[2])
    chosen = {name: (before, size) for name, before, size in _AXIS.findall(text[text.rindex("{") :])}
    shape: list[int] = []
    together: list[int] = []
    for name, size in sizes.items():
        before, part = (int(number or 1) for number in chosen[name]) if name in chosen else (size, 1)
        part = size if name in chosen and not chosen[name][1] else part
        together.append(len(shape) + 1)
        shape += [before, part, size // before // part]
    apart = [axis for axis in range(len(shape)) if axis not in together]
    group = np.prod([shape[axis] for axis in together], dtype=np.int64)
    return numbers.reshape(shape).transpose(apart + together).reshape(-1, group)


def _axes(members: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ. Devices are numbered in the order of the mesh."""
    places = np.unravel_index(members, tuple(mesh.values()))
    return tuple(name for name, place in zip(mesh, places, strict=True) if (place != place[:, :1]).any())


def _payload(instruction: Instruction, kind: str, group: int) -> int:
    """Bytes of the whole array. A start returns what it read beside what it will write."""
    nbytes = array_bytes(_HANDLE.sub("", instruction.result))
    if kind == "reduce-scatter":
        return nbytes * group
    if instruction.opcode == "all-gather-start":
        return nbytes * group // (group + 1)
    if instruction.opcode == "collective-permute-start":
        return nbytes // 2
    return nbytes
