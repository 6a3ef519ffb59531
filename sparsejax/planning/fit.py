"""Does a run fit a machine, what does it send, how long does it take: the real programs, compiled; the rest arithmetic.

A ``Fit`` is one model on one machine. The run and its dense twin are one each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from sparsejax.config import RunConfig
from sparsejax.hardware.interconnect import group_bandwidth
from sparsejax.hardware.systems import System
from sparsejax.hardware.topologies import place_of
from sparsejax.models.parallel import AXES
from sparsejax.planning import compiling, estimate, floor
from sparsejax.planning.collectives import collectives
from sparsejax.planning.facts import Facts
from sparsejax.planning.footprint import ProgramBytes, local_bytes, program_bytes, state_bytes
from sparsejax.planning.overflow import Overflow
from sparsejax.planning.ring import Traffic
from sparsejax.planning.traffic import Work, step_traffic
from sparsejax.planning.whole_run import mean_density, mean_times, stages
from sparsejax.training.loss import chunk_count
from sparsejax.training.recipe import Recipe
from sparsejax.training.spent import whole_run

# Of a GPU's memory, what is left when its runtime and fragments have had theirs: XLA_PYTHON_CLIENT_MEM_FRACTION=0.9.
GPU_MEMORY_SHARE = 0.9

# Of the rows of memory, beside those of the state.
TEACHER = "frozen weights to learn from"


@dataclasses.dataclass(frozen=True)
class Fit:
    """One model on one machine; bytes are of one device, FLOPs of a whole step on all devices.

    Attributes:
      recipe: what would be trained; its mesh is settled.
      work: the same in numbers.
      state: of one device by kind, from its shardings; and the weights of a run's teacher, which no checkpoint has.
      estimate: of everything else in a step, by arithmetic.
      programs: what compiled programs hold, or by how much they are too large; empty where nothing was compiled.
      traffic: collectives of a train step: of the compiled program, by formula where there is none.
      executed, theoretical: FLOPs, see ``models/accounting.py``; means over the steps of the run, passes that score
        places included.
      density: share of active weights, the mean over the run.
      times: of a step; None on a CPU, which has no peaks.
      limit: bytes that a device has for programs; None where unknown.
    """

    recipe: Recipe
    work: Work
    state: Mapping[str, int]
    estimate: Mapping[str, int]
    programs: Mapping[str, ProgramBytes | Overflow]
    traffic: tuple[Traffic, ...]
    executed: int
    theoretical: int
    density: float
    times: floor.Times | None
    limit: int | None

    @property
    def compiled(self) -> bool:
        """Whether the train step was compiled, and fitted its compiler."""
        return isinstance(self.programs.get(compiling.TRAIN), ProgramBytes)

    @property
    def estimated(self) -> int:
        """State and everything else, by arithmetic; the logits are gone before a layer is differentiated."""
        never_both = min(self.estimate[estimate.LAYER], self.estimate[estimate.LOGITS])
        return sum(self.state.values()) + sum(self.estimate.values()) - never_both

    @property
    def needed(self) -> int:
        """Bytes of the program that needs most; estimated where nothing was compiled."""
        return max(self._sizes.values(), default=self.estimated)

    @property
    def fullest(self) -> str:
        """Name of the program that needs most."""
        return max(self._sizes, key=self._sizes.__getitem__, default=compiling.TRAIN)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: size_of(each) for name, each in self.programs.items()}

    @property
    def fits(self) -> bool:
        """Whether a device has what is needed. A compiler that refused is right; so is one that did not."""
        if any(isinstance(each, Overflow) for each in self.programs.values()):
            return False
        return self.limit is None or self.needed <= self.limit


def size_of(program: ProgramBytes | Overflow) -> int:
    """Bytes that a device must have for a program."""
    return program.needed if isinstance(program, Overflow) else program.total


def fit_of(recipe: Recipe, system: System, programs: Iterable[str] = compiling.ALL) -> Fit:
    """Compile the named programs of a recipe and add up what they need; GPUs' are never compiled, nor with none named.

    Raises:
      RuntimeError: the compiler is in use by another process for too long.
    """
    device = compiling.devices_of(system)[0]
    work = work_of(recipe)
    sizes: dict[str, ProgramBytes | Overflow] = {}
    traffic = step_traffic(work)
    wanted = tuple(programs) if system.target.platform != "gpu" else ()
    for name, lowered in compiling.lower_programs(recipe, device, wanted).items():
        compiled = compiling.compile_or_overflow(lowered)
        if isinstance(compiled, Overflow):
            sizes[name] = compiled
            continue
        sizes[name] = program_bytes(compiled, system.target.platform)
        if name == compiling.TRAIN:
            traffic = _sent(recipe, compiled)
    return _fit(recipe, work, system, sizes, traffic, device)


def work_of(recipe: Recipe) -> Work:
    """The step of a recipe in numbers."""
    run, parallel = recipe.run, recipe.parallel
    return Work(
        shape=recipe.shape,
        weights=tuple(weight.counted for weight in recipe.weights.values()),
        replica=parallel.replica,
        fsdp=parallel.fsdp,
        tensor=parallel.tensor,
        rows=run.train.batch_size,
        length=run.data.sequence_length,
        microbatches=run.train.microbatches,
        compute_bytes={"bfloat16": 2, "float32": 4}[run.model.compute_dtype],
        remat=run.model.remat,
        apart=recipe.replicas > 1,
        teacher=run.init.distills,
        compared=run.init.distills and run.init.feature_weight > 0,
    )


def _fit(
    recipe: Recipe,
    work: Work,
    system: System,
    sizes: Mapping[str, ProgramBytes | Overflow],
    traffic: tuple[Traffic, ...],
    device: jax.Device,
) -> Fit:
    run, name = recipe.run, recipe.attention.name
    rows, length = work.rows // (work.replica * work.fsdp * work.microbatches), work.length // work.tensor
    chunks = chunk_count((rows, length), run.train.loss_chunk)
    executed, at_least = floor.step_flops(work, recipe.implementations, attention=name, logits_recomputed=chunks > 1)
    spent = whole_run(recipe)
    mean_executed = round(spent.executed * work.tokens)
    moments = {"float32": 4, "bfloat16": 2}[run.optim.moment_dtype]
    beside, passing = {}, {}
    if run.init.distills:
        beside = {TEACHER: local_bytes(jax.tree.leaves(compiling.teacher_on(recipe, device)))}
        passing = {
            estimate.TEACHER: estimate.teacher_bytes(work, attention=name, chunk_tokens=rows * -(-length // chunks))
        }
    times = None
    if system.chip is not None:
        flops = (mean_executed - (executed - at_least)) // work.devices
        parts = []
        for share, stage in stages(recipe):
            here = work_of(stage)
            sent = traffic if stage is recipe else step_traffic(here)
            links = {each.axes: axes_bandwidth(system, recipe.mesh, each.axes) for each in sent}
            rates = floor.Rates(system.chip.peak_flops, system.chip.memory_bandwidth, links)
            moved = floor.memory_bytes(here, logits_made=1 + (chunks > 1), moment_bytes=moments)
            moved += work.microbatches * sum(beside.values())
            parts.append((share, floor.times_of(flops, moved, sent, rates)))
        times = mean_times(parts)
    refused = [each.available for each in sizes.values() if isinstance(each, Overflow)]
    return Fit(
        recipe=recipe,
        work=work,
        state=state_bytes(compiling.placed_on(recipe, device)) | beside,
        estimate=estimate.step_bytes(
            work, attention=name, chunk_tokens=rows * -(-length // chunks), sequence=run.mesh.sequence
        )
        | passing,
        programs=sizes,
        traffic=traffic,
        executed=mean_executed,
        theoretical=round(spent.theoretical * work.tokens),
        density=mean_density(recipe, spent),
        times=times,
        limit=refused[0] if refused else memory_limit(system),
    )


def memory_limit(system: System) -> int | None:
    """Bytes that programs may take on a device; None for a CPU. TPU compilers keep a little more for themselves."""
    if system.chip is None:
        return None
    return int(system.chip.memory_bytes * (GPU_MEMORY_SHARE if system.target.platform == "gpu" else 1))


def axes_bandwidth(system: System, mesh: Mesh | None, axes: tuple[str, ...]) -> float:
    """Bytes/s of the slowest group of devices that differ along these mesh axes only.

    Raises:
      ValueError: no mesh, or a machine whose devices have no links.
    """
    if mesh is None or system.links is None:
        raise ValueError(f"{system.name}: no links between its devices")
    in_order = [place_of(device) for device in mesh.devices.flat] if system.torus else system.gpu_places()
    places: np.ndarray = np.empty(mesh.devices.shape, object)
    places.reshape(-1)[:] = in_order[: mesh.devices.size]
    together = [AXES.index(axis) for axis in axes]
    apart = [axis for axis in range(places.ndim) if axis not in together]
    groups = places.transpose(apart + together).reshape(-1, int(np.prod([places.shape[axis] for axis in together])))
    return min(group_bandwidth(system.links, system.torus, group) for group in groups.tolist())


def _sent(recipe: Recipe, compiled: jax.stages.Compiled) -> tuple[Traffic, ...]:
    text = compiled.as_text()
    assert text is not None
    return () if recipe.mesh is None else collectives(text, dict(recipe.mesh.shape))


def with_mesh(run: RunConfig, replica: int, fsdp: int, tensor: int) -> RunConfig:
    """The run on another mesh."""
    return dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, replica=replica, fsdp=fsdp, tensor=tensor))


def checked(run: RunConfig, facts: Facts, system: System, programs: Iterable[str] = compiling.ALL) -> Fit:
    """``fit_of`` a run; raises ``ConfigError`` as the trainer would on that machine."""
    return fit_of(compiling.recipe_on(run, facts, system), system, programs)
