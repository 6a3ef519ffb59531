"""``sparsejax harness``: tasks of the LM evaluation harness over a run, an export or a LLaMA checkpoint."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from sparsejax.cli.flags import FlagParser
from sparsejax.cli.streams import display_of
from sparsejax.files.outputs import Outputs

# The least and the most that a flag may be.
_RANGES = {"limit": (0, 2**31), "num_fewshot": (0, 2**16), "batch_size": (1, 2**16), "length": (0, 2**24)}


def main(argv: list[str]) -> int:
    """Print one line a metric and write the results as JSON; returns 0."""
    parser = FlagParser("harness", "Tasks of the LM evaluation harness, on all devices of this machine.")
    parser.add_argument("--workdir", required=True, help="run directory, or directory of an export")
    parser.add_argument("--tasks", required=True, help="names, separated by commas")
    parser.add_argument("--include-path", default="", help="folder with task files of your own")
    parser.add_argument("--limit", type=int, default=0, help="examples of every task; 0 means all")
    parser.add_argument("--num-fewshot", type=int, default=None, help="examples in front of every question")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of a batch")
    parser.add_argument("--length", type=int, default=0, help="tokens of the context; 0 is the training length")
    parser.add_argument("--out", help="JSON file; by default <workdir>/lm_eval/<tasks>.json")
    parser.add_overwrite()
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="those trained, or their average")
    flags = parser.parse_args(argv)
    for name, (least, most) in _RANGES.items():
        value = getattr(flags, name)
        if value is not None and not least <= value <= most:
            parser.error(f"--{name.replace('_', '-')}={value}: must be from {least} to {most}")
    if flags.length == 1:
        parser.error("--length=1: must be at least 2, or 0")
    names = tuple(filter(None, flags.tasks.split(",")))
    if not names or len(set(names)) < len(names):
        parser.error(f"--tasks={flags.tasks}: must name different tasks")
    if flags.include_path and not Path(flags.include_path).is_dir():
        parser.error(f"--include-path={flags.include_path}: there is no such folder")
    file = f"{'+'.join(names).replace('/', '_')}.json"
    text = f"{flags.workdir.rstrip('/')}/lm_eval/{file}" if flags.out is None else flags.out
    out = Outputs(flags.overwrite, [flags.workdir]).file("out", text)

    from sparsejax.interop.harness import Tasks, require_package, result_lines, results_text, run_tasks

    require_package()

    import jax

    from sparsejax.interop.harness_requests import HarnessModel
    from sparsejax.interop.open_model import open_model
    from sparsejax.training.workdir import run_directory

    # What the file keeps is made even if nobody can see it.
    tell = partial(print, file=display_of(sys.stdout))
    opened = open_model(run_directory(flags.workdir), tell, flags.weights)
    length = flags.length or opened.length
    model = HarnessModel(opened.engine(jax.devices()), opened.tokenizer, length, flags.batch_size, opened.end_ids)
    found = run_tasks(model, Tasks(names, flags.include_path, flags.limit, flags.num_fewshot))
    tell("\n".join(result_lines(found)), flush=True)
    out.write(results_text(found, vars(flags) | {"length": length}))
    tell(f"results: {out.path}")
    return 0
