"""``sparsejax evaluate``: validation loss of the newest checkpoint of a run."""

from __future__ import annotations

from rich.console import Console

from sparsejax.cli.flags import FlagParser


def main(argv: list[str]) -> int:
    """Print loss, perplexity and bits per byte; returns 0."""
    parser = FlagParser("evaluate", "Validation loss of the newest checkpoint of a run.")
    parser.add_argument("--workdir", required=True, help="run directory, or gs://bucket/run")
    parser.add_argument("--tokens", type=int, default=0, help="validation tokens; 0 means the whole split")
    flags = parser.parse_args(argv)
    if flags.tokens < 0:
        parser.error(f"--tokens={flags.tokens}: must be at least 0")

    import jax

    from sparsejax.data.pipeline import open_corpus, validation_batches
    from sparsejax.training.evaluate import evaluate
    from sparsejax.training.restore import restore_run
    from sparsejax.training.steps import make_eval_step
    from sparsejax.training.workdir import check_same_data, run_directory

    console = Console()

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    workdir = run_directory(flags.workdir)
    trained = restore_run(workdir, notice)
    data, train = trained.run.data, trained.run.train
    corpus = open_corpus(data, notice)
    check_same_data(workdir, corpus.data_digest, corpus.tokenizer.digest)
    limit = flags.tokens or corpus.validation.tokens
    found = evaluate(
        jax.jit(make_eval_step(trained.recipe)),
        trained.state.params,
        trained.state.topology,
        validation_batches(corpus.validation, data.sequence_length, train.batch_size, limit),
        corpus.validation.bytes_per_token,
        lambda: False,
    )
    assert found is not None
    notice(
        f"step {int(trained.state.step)}: {found.loss:.5f} nats/token, perplexity {found.perplexity:.3f}, "
        f"{found.bits_per_byte:.5f} bits/byte on {found.tokens:,} validation tokens"
    )
    return 0
