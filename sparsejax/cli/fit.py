"""``sparsejax fit``: a scaling law from finished runs, with intervals, held-out errors and diagnostics."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path

from sparsejax.cli import fit_flags
from sparsejax.cli.flags import paths
from sparsejax.cli.streams import display_of
from sparsejax.config import ConfigError
from sparsejax.files.outputs import Outputs

# Fits are float64 on the host: no accelerator is looked for, which would take longer than the fit.
_PLATFORM = "JAX_PLATFORMS"


def main(argv: list[str]) -> int:
    """Fit, write fit.json, report.md and residuals.png, print the report; returns 0."""
    flags = fit_flags.parse(argv)
    os.environ.setdefault(_PLATFORM, "cpu")

    from sparsejax.scaling.fit_report import FILES, report_lines, write_report
    from sparsejax.scaling.laws.registry import law_named
    from sparsejax.scaling.rows import table_of
    from sparsejax.scaling.studies import study
    from sparsejax.scaling.tables import read_file, saved_rows

    try:
        laws = [law_named(name) for name in (flags.law, *filter(None, flags.against.split(",")))]
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    if len({law.name for law in laws}) < len(laws):
        raise ConfigError(f"--against={flags.against}: name different laws")
    fixed = fit_flags.values(flags.fix, "fix", laws[0].names)
    sources = [Path(path) for path in paths("rows", flags.rows)]
    outputs = Outputs(flags.overwrite, sources)
    # What the files keep is made even if nobody can see it.
    tell = partial(print, file=display_of(sys.stdout), flush=True)
    out = outputs.files("out", flags.out, FILES)
    table = None if flags.save_rows is None else outputs.file("save-rows", flags.save_rows)
    kept = "" if table is None else saved_rows(sources, flags.save_rows)
    readings = [read_file(path, flags.parameters, flags.all_rows) for path in sources]
    rows = [row for reading in readings for row in reading.rows]
    notes = [note for reading in readings for note in reading.notes]
    if len(sources) > 1 and not any(row.tokenizer or row.text for row in rows):
        notes.append("no file states its tokenizer or text: losses compare only if they are of one of each")
    source = ", ".join(path.name for path in sources)
    found = study(
        laws,
        table_of(rows, source, flags.allow_undecayed, flags.allow_dense_starts, notes),
        fixed=fixed,
        free_held=fit_flags.held(flags.free, laws[0], fixed),
        delta=fit_flags.delta(flags.delta),
        staged=flags.stages,
        starts=flags.starts,
        samples=flags.bootstrap,
        level=flags.level,
        seed=flags.seed,
        command=shlex.join(["sparsejax", "fit", *argv]),
    )
    tell("\n".join(report_lines(found)))
    if table is not None:
        table.write(kept)
    write_report(found, out)
    tell(f"\nwrote {out.folder}/{', '.join(FILES)}; next: sparsejax advise --fit={out.folder}/fit.json ...")
    return 0
