"""What would make a run fit that does not: the first change, in the order in which they cost least, that is found to.

Changes that decide what is learned are not among them: density, shares and batch stay. Smaller index arrays by larger
blocks are named only where indices are large.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from sparsejax.config import ConfigError, RunConfig
from sparsejax.hardware.systems import System
from sparsejax.planning.compiling import TRAIN, recipe_on
from sparsejax.planning.facts import Facts
from sparsejax.planning.fit import Fit, fit_of, with_mesh
from sparsejax.planning.overflow import Overflow

# Each costs a compilation.
_MOST_COMPILED = 4
_LARGE_INDEX = 0.1


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A change of flags under which a run fits.

    Attributes:
      flags: what to give beside the run's own.
      needed: bytes of a device under them.
      compiled: whether the changed program was compiled; else it is arithmetic.
    """

    flags: str
    needed: int
    compiled: bool


def first_remedy(fit: Fit, facts: Facts, system: System, say: Callable[[str], None]) -> Remedy | None:
    """The first change under which the run fits, or None. Compiles what arithmetic does not rule out."""
    assert fit.limit is not None
    # What the compiler said of the run itself tells by how much arithmetic is off.
    off = max(fit.needed / fit.estimated, 1.0) if fit.programs else 1.0
    too_large = {name for name, each in fit.programs.items() if isinstance(each, Overflow)}
    tried = 0
    for flags, run in _changes(fit.recipe.run):
        try:
            recipe = recipe_on(run, facts, system)
        except ConfigError:
            continue
        rough = fit_of(recipe, system, programs=())
        if rough.estimated * min(off, 1.5) > fit.limit:
            continue
        if system.target.platform == "gpu":
            return Remedy(flags, rough.estimated, compiled=False)
        if tried == _MOST_COMPILED:
            return None
        tried += 1
        say(f"trying {flags}")
        real = fit_of(recipe, system, programs=too_large | {TRAIN})
        if real.fits:
            return Remedy(flags, real.needed, compiled=True)
    return None


def _changes(run: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Flags and the changed run: recomputing, cutting by fsdp instead of copies, smaller microbatches, all of these."""
    mesh, train = run.mesh, run.train
    recomputed = dataclasses.replace(run, model=dataclasses.replace(run.model, remat="full"))
    if run.model.remat != "full":
        yield "--config.model.remat=full", recomputed
    cut = mesh.fsdp * mesh.replica
    if mesh.replica > 1:
        yield "--config.mesh.replica=1 --config.mesh.fsdp=0", with_mesh(run, 1, cut, mesh.tensor)
    rows = train.batch_size // cut
    smaller = [parts for parts in range(train.microbatches + 1, rows + 1) if rows % parts == 0]
    for start, given in ((run, ""), (recomputed, "--config.model.remat=full ")):
        if given and run.model.remat == "full":
            continue
        for parts in smaller:
            micro = dataclasses.replace(start.train, microbatches=parts)
            yield f"{given}--config.train.microbatches={parts}", dataclasses.replace(start, train=micro)
    if mesh.replica > 1 and smaller:
        micro = dataclasses.replace(train, microbatches=smaller[-1])
        everything = dataclasses.replace(with_mesh(recomputed, 1, cut, mesh.tensor), train=micro)
        flags = f"--config.mesh.replica=1 --config.mesh.fsdp=0 --config.train.microbatches={smaller[-1]}"
        yield f"--config.model.remat=full {flags}", everything


def index_advice(fit: Fit) -> str:
    """A line about larger blocks, where indices take much of the state; else empty."""
    index = fit.state["indices"] + fit.state["ages"]
    if index <= _LARGE_INDEX * sum(fit.state.values()):
        return ""
    return (
        f"indices and ages are {index / sum(fit.state.values()):.0%} of the state: larger blocks "
        f"(--config.topology.block) shrink them; now {fit.recipe.run.topology.block}"
    )
