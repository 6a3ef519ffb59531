"""Which mesh a run should have on a machine: every legal one ranked by arithmetic, the best few compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from sparsejax.config import ConfigError, RunConfig
from sparsejax.hardware.systems import System
from sparsejax.planning.compiling import TRAIN, devices_of, recipe_on
from sparsejax.planning.facts import Facts
from sparsejax.planning.fit import checked, fit_of, memory_limit, with_mesh
from sparsejax.training.mesh import divisors

_MOST_COMPILED = 3


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh and what arithmetic says of it: bytes of one device, and the expected seconds of a step."""

    run: RunConfig
    needed: int
    seconds: float

    @property
    def name(self) -> str:
        """As ``--mesh`` takes it."""
        return f"{self.run.mesh.replica}x{self.run.mesh.fsdp}x{self.run.mesh.tensor}"


def candidates(run: RunConfig, facts: Facts, system: System) -> list[Candidate]:
    """All meshes that the run can have on all devices of the machine, those that fit first, faster ones before slower.

    Where nothing is known of links and peaks (a CPU), those that need least memory come first. The tensor axis divides
    ``topology.shards``, which decides what is learned: the search leaves it alone.
    """
    devices_of(system)  # says itself what it lacks, and is no reason to refuse one mesh after another
    found = []
    for replica, fsdp, tensor in _shapes(system.devices):
        try:
            recipe = recipe_on(with_mesh(run, replica, fsdp, tensor), facts, system)
        except ConfigError:
            continue
        fit = fit_of(recipe, system, programs=())
        found.append(
            Candidate(recipe.run, fit.estimated, fit.times.expected if fit.times is not None else fit.estimated)
        )
    limit = memory_limit(system)
    return sorted(found, key=lambda each: (limit is not None and each.needed > limit, each.seconds))


def best_mesh(
    run: RunConfig, facts: Facts, system: System, say: Callable[[str], None]
) -> tuple[RunConfig, list[Candidate]]:
    """The run on the fastest mesh whose train step fits, and all candidates in the order of their rank.

    The best few are compiled in turn until one fits; GPUs' are not compiled.

    Raises:
      ConfigError: the run can have no mesh on this machine.
    """
    found = candidates(run, facts, system)
    if not found:
        raise ConfigError(
            f"--hardware={system.name}: no mesh of its {system.devices} devices divides the batch, the widths and "
            "topology.shards; change train.batch_size, or give another machine"
        )
    for each in found[:_MOST_COMPILED] if system.target.platform != "gpu" else []:
        say(f"compiling mesh {each.name}")
        if checked(each.run, facts, system, programs=(TRAIN,)).fits:
            return each.run, found
    return found[0].run, found


def _shapes(devices: int) -> Iterator[tuple[int, int, int]]:
    for tensor in divisors(devices):
        for fsdp in divisors(devices // tensor):
            yield devices // tensor // fsdp, fsdp, tensor
