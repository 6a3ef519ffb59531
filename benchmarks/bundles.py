"""Reads the TPU compiler's final schedule: how many instruction bundles a kernel issues on each of its ways.

A bundle is what one TensorCore issues in one cycle, so bundles are a lower bound of cycles: waits for copies and
for the matrix units are not in them. The compiler writes one text file a program, a line a bundle: its address, marks
(``LB`` begins a loop body, ``>`` once for every loop around it), the operations in braces, and in comments where its
regions start. Regions are what branches (``sbr``) jump to.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

_BUNDLE = re.compile(r"\s*0(?:x[0-9a-f]+)?\s+(?:(?:LH|LB|LE|PB|PF|CT)\s*)*:")
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)")
_BRANCH = re.compile(r"sbr\.rel (\(!?%\w+\) )?target = \$region(\d+)")
_PRODUCT = re.compile(r"= vmatmul")
_STORE = re.compile(r"= vst\b")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """One line of the schedule.

    Attributes:
      products: operations that feed rows to a matrix unit.
      stores: stores of vector registers.
      target: bundle that a branch goes to; past the end for the program's exit; None without a branch.
      always: whether the branch is taken unconditionally.
    """

    products: int
    stores: int
    target: int | None
    always: bool


@dataclasses.dataclass(frozen=True)
class Way:
    """One way through the body of a loop.

    Attributes:
      runs: stretches of code without a branch that multiply or store vectors. Branches exclude each other, which
        their targets do not show: a way with one run is one that the kernel can take, one with two may be none.
      products: operations that feed them, together.
    """

    runs: int
    products: int


def dump_schedules(folder: Path) -> None:
    """Let the TPU compiler of this process write its schedules to ``folder``; it reads this once, when it is loaded."""
    os.environ["LIBTPU_INIT_ARGS"] = (
        f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_debug_level=1 "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles"
    )


def read_schedule(path: Path) -> list[Bundle]:
    """The bundles of one ``*final_bundles.txt``.

    Raises:
      ValueError: the file holds no bundle.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _BUNDLE.match(line)]
    if not lines:
        raise ValueError(f"{path}: no bundle found; was it written with the pass label final_bundles?")
    starts = {int(region): i for i, line in enumerate(lines) for region in _REGION.findall(line)}
    bundles = []
    for line in lines:
        branch = _BRANCH.search(line)
        # A region that starts nowhere is the end of the program.
        target = starts.get(int(branch[2]), len(lines)) if branch else None
        counts = len(_PRODUCT.findall(line)), len(_STORE.findall(line))
        bundles.append(Bundle(*counts, target, branch is not None and branch[1] is None))
    return bundles


def loops(schedule: Sequence[Bundle]) -> list[range]:
    """The bundles of every loop body, the longest loop first: the grid's, where the kernel has one."""
    found = [range(b.target, i + 1) for i, b in enumerate(schedule) if b.target is not None and b.target <= i]
    return sorted(found, key=len, reverse=True)


def ways(schedule: Sequence[Bundle], body: range) -> dict[Way, int]:
    """Every kind of way through a loop body, with the bundles of the longest way of its kind.

    Loops inside the body are passed once.
    """
    targets = {b.target for b in schedule if b.target is not None}
    after = {i + 1 for i, b in enumerate(schedule) if b.target is not None}
    cuts = [*sorted({body.start, *(c for c in targets | after if c in body)}), body.stop]
    best: dict[int, dict[Way, int]] = {body.start: {Way(0, 0): 0}}
    for first, end in itertools.pairwise(cuts):
        fed = sum(schedule[i].products for i in range(first, end))
        works = fed > 0 or any(schedule[i].stores for i in range(first, end))
        last = schedule[end - 1]
        nexts = [] if last.always and end < body.stop else [end]
        if last.target is not None and end <= last.target <= body.stop and last.target != end:
            nexts.append(last.target)
        for way, bundles in best.get(first, {}).items():
            longer = Way(way.runs + works, way.products + fed)
            for successor in nexts:
                known = best.setdefault(successor, {})
                known[longer] = max(known.get(longer, 0), bundles + end - first)
    return best.get(body.stop, {})
