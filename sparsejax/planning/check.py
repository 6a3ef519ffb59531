"""The whole of ``sparsejax check``: from a run and the name of a machine to tables and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable

import jax
from rich.console import Console

from sparsejax.config import ConfigError, RunConfig
from sparsejax.files.outputs import OutputFile
from sparsejax.hardware.systems import System, parse_system
from sparsejax.planning import check_report, mesh_search, remedies
from sparsejax.planning.compiling import TRAIN, recipe_on
from sparsejax.planning.facts import Facts, facts_of
from sparsejax.planning.fit import Fit, fit_of
from sparsejax.training.idle_settings import facts_of as facts_of_settings
from sparsejax.training.recipe import dense_twin
from sparsejax.training.run_remarks import refusals, remarks

FITS, DOES_NOT_FIT = 0, 3

_SHOWN_MESHES = 5


def run_check(
    run: RunConfig,
    hardware: str,
    *,
    steps: int,
    vocab_size: int,
    search: bool,
    twin: str,
    output: OutputFile | None,
    console: Console,
) -> int:
    """Check a run on a machine and print what was found; returns 0 fits, 3 does not.

    Args:
      run: the resolved configuration; nothing of its data is opened but the file of a given tokenizer.
      hardware: name of the machine, see ``hardware/systems.py``.
      steps: of the run; 0 where the configuration says it, see ``facts_of``.
      vocab_size: the same of the vocabulary.
      search: propose the mesh instead of taking the configuration's.
      twin: ``"compiled"`` puts the compiled dense twin beside it, ``"arithmetic"`` its state, formulas and estimates,
        ``"none"`` nothing.
      output: file for the same figures; None writes none.
      console: where it is printed.

    Raises:
      ConfigError: a machine, a mesh or a run that cannot be.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    try:
        system = parse_system(hardware)
    except ValueError as error:
        raise ConfigError(f"--hardware={error}") from error
    # Nothing runs here, so an accelerator that is here is left alone.
    jax.config.update("jax_platforms", "cpu")
    facts = facts_of(run, steps=steps, vocab_size=vocab_size)
    for note in (*facts.notes, *_idle(run, facts)):
        say(note)
    if search:
        run, found = mesh_search.best_mesh(run, facts, system, say)
        for each in found[:_SHOWN_MESHES]:
            say(f"mesh {each.name}: {each.needed / 2**30:.2f} GiB a device, by arithmetic{_expected(each, system)}")
    recipe = recipe_on(run, facts, system)
    fit = fit_of(recipe, system)
    dense = None
    if twin != "none" and recipe.sparse:
        dense = fit_of(dense_twin(recipe), system, programs=(TRAIN,) if twin == "compiled" else ())
    _print(console, fit, dense, system)
    if output is not None:
        output.write(json.dumps(check_report.record(fit, dense, system), indent=2) + "\n")
    if fit.fits:
        if search:
            mesh = fit.recipe.run.mesh
            say(f"proposed: --mesh={mesh.replica}x{mesh.fsdp}x{mesh.tensor}")
        return FITS
    _advise(fit, facts, system, say)
    return DOES_NOT_FIT


def _idle(run: RunConfig, facts: Facts) -> list[str]:
    """What does nothing in the run; raises ``ConfigError`` for what a new run is refused for."""
    known = facts_of_settings(run, steps=facts.steps)
    for line in refusals(known):
        raise ConfigError(line)
    return remarks(known)


def _advise(fit: Fit, facts: Facts, system: System, say: Callable[[str], None]) -> None:
    """Say what would make it fit."""
    remedy = remedies.first_remedy(fit, facts, system, say)
    if remedy is None:
        say("no remedy was found in remat, mesh and microbatches: take more devices, a lower density or a smaller size")
    else:
        how = "verified by compiling" if remedy.compiled else "by arithmetic"
        say(f"would fit with {remedy.flags}: {remedy.needed / 2**30:.2f} GiB a device, {how}")
    if advice := remedies.index_advice(fit):
        say(advice)


def _expected(candidate: mesh_search.Candidate, system: System) -> str:
    return "" if system.chip is None else f", {1e3 * candidate.seconds:.1f} ms a step expected"


def _print(console: Console, fit: Fit, twin: Fit | None, system: System) -> None:
    console.print(check_report.heading(fit, system), highlight=False, soft_wrap=True)
    console.print(check_report.memory_table(fit, twin))
    if fit.traffic:
        console.print(check_report.traffic_table(fit, twin, system))
    console.print(check_report.time_table(fit, twin))
    for remark in check_report.remarks(fit, twin, system):
        console.print(remark, highlight=False, soft_wrap=True)
    console.print(check_report.verdict(fit), highlight=False, soft_wrap=True)
