"""``sparsejax generate``: text from a run, an export or a LLaMA checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import sys

from sparsejax.cli.flags import FlagParser
from sparsejax.cli.streams import display_of
from sparsejax.files.outputs import Outputs
from sparsejax.files.text import one_line

# The least and the most that a flag may be.
_RANGES = {
    "tokens": (0, 2**31 - 1),
    "top_k": (0, 2**31 - 1),
    "seed": (0, 2**32 - 1),
    "length": (0, 2**24),
    "batch_size": (1, 2**16),
}


def main(argv: list[str]) -> int:
    """Write prompts and their continuations to standard output; returns 0."""
    parser = FlagParser(
        "generate",
        "Text from the newest checkpoint of a run, from an export, or from a LLaMA checkpoint.",
        "One prompt is written as it is continued; several are continued together and written in their order, with a "
        "line of --- between them. Prompt i draws with seed + i.",
    )
    parser.add_argument("--workdir", required=True, help="run directory, gs://bucket/run, or directory of an export")
    parser.add_argument("--prompt", action="append", default=[], help="text to continue; may be given several times")
    parser.add_argument("--prompts", default="", help="file of prompts: one a line, or .jsonl with a key 'prompt'")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens at most")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most likely token")
    parser.add_argument("--top-k", type=int, default=40, help="draw from the k most likely tokens; 0 means all")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest tokens of this probability")
    parser.add_argument("--stop", action="append", default=[], help="text that ends a continuation; several times")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal text")
    parser.add_argument("--length", type=int, default=0, help="tokens of the context; 0 is the training length")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts continued together")
    parser.add_argument("--out", help="JSON lines file to write prompts, texts and their ends to as well")
    parser.add_overwrite()
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="those trained, or their average")
    flags = parser.parse_args(argv)
    _check(parser, flags)
    inputs = [flags.workdir, *([flags.prompts] if flags.prompts else [])]
    out = None if flags.out is None else Outputs(flags.overwrite, inputs).file("out", flags.out)

    import jax

    from sparsejax.inference.prompts import read_prompts
    from sparsejax.inference.sampling import Sampling
    from sparsejax.inference.writing import Request, write_texts
    from sparsejax.interop.open_model import open_model
    from sparsejax.training.workdir import run_directory

    prompts = read_prompts(flags.prompts) if flags.prompts else flags.prompt or [""]
    if flags.seed + len(prompts) > 2**32:
        parser.error(f"--seed={flags.seed}: with {len(prompts)} prompts it must be below 2**32")
    opened = open_model(run_directory(flags.workdir), _tell, flags.weights)
    request = Request(
        prompts=prompts,
        new_tokens=flags.tokens,
        length=flags.length or opened.length,
        sampling=Sampling(flags.temperature, flags.top_k, flags.top_p),
        seed=flags.seed,
        stop=flags.stop,
        batch_size=flags.batch_size,
        end_ids=opened.end_ids,
    )
    # What is kept in a file as well is made even if nobody can see it.
    terminal = sys.stdout if out is None else display_of(sys.stdout)
    rows = write_texts(opened.engine(jax.devices()[:1]), opened.tokenizer, request, terminal, _tell)
    if out is not None:
        out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return 0


def _check(parser: FlagParser, flags: argparse.Namespace) -> None:
    for name, (least, most) in _RANGES.items():
        value = getattr(flags, name)
        if not least <= value <= most:
            parser.error(f"--{name.replace('_', '-')}={value}: must be from {least} to {most}")
    if not 0 <= flags.temperature < math.inf:
        parser.error(f"--temperature={flags.temperature}: must be a number of at least 0")
    if not 0 < flags.top_p <= 1:
        parser.error(f"--top-p={flags.top_p}: must be in (0, 1]")
    if flags.length == 1:
        parser.error("--length=1: must be at least 2, or 0")
    if not all(flags.stop):
        parser.error("--stop=: must not be empty")
    if flags.prompt and flags.prompts:
        parser.error("--prompt, --prompts: give one of them")
    for name in ("prompt", "stop"):
        for text in getattr(flags, name):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                parser.error(f"--{name}={one_line(text, 60)}: is not UTF-8")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
