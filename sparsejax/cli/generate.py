"""``sparsejax generate``: text from the newest checkpoint of a run."""

from __future__ import annotations

import sys

from sparsejax.cli.flags import FlagParser


def main(argv: list[str]) -> int:
    """Write the prompt and its continuation to standard output; returns 0."""
    parser = FlagParser("generate", "Text from the newest checkpoint of a run.")
    parser.add_argument("--workdir", required=True, help="run directory, or gs://bucket/run")
    parser.add_argument("--prompt", default="", help="text to continue")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens at most")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most likely token")
    parser.add_argument("--top-k", type=int, default=40, help="draw from the k most likely tokens; 0 means all")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal text")
    flags = parser.parse_args(argv)
    for name, value in (("tokens", flags.tokens), ("temperature", flags.temperature), ("top-k", flags.top_k)):
        if value < 0:
            parser.error(f"--{name}={value}: must be at least 0")

    from sparsejax.inference.sampling import Sampling, generate
    from sparsejax.training.restore import restore_run
    from sparsejax.training.workdir import run_directory

    trained = restore_run(run_directory(flags.workdir), lambda text: print(text, file=sys.stderr))
    sampling = Sampling(temperature=flags.temperature, top_k=flags.top_k, seed=flags.seed)
    text = written = flags.prompt
    print(written, end="", flush=True)
    for text in generate(
        trained.recipe.graphdef,
        trained.state.params,
        trained.state.topology,
        trained.tokenizer,
        flags.prompt,
        new_tokens=flags.tokens,
        window=trained.run.data.sequence_length,
        sampling=sampling,
    ):
        # A token can end inside a character; what is not final yet is held back.
        if text.startswith(written) and not text.endswith("�"):
            print(text[len(written) :], end="", flush=True)
            written = text
    print(text[len(written) :] if text.startswith(written) else f"\n{text}")
    return 0
