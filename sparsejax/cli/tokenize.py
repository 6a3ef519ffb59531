"""``sparsejax tokenize``: tokenise a corpus once, on one host or many, into a token set to train from."""

from __future__ import annotations

import sys

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.cli.flags import FlagParser
from sparsejax.config import ConfigError

# As for a run that was stopped in good order: started again, it goes on.
START_AGAIN = 75


def main(argv: list[str]) -> int:
    """Do one process's share; returns 0, or 75 if parts of other processes are missing and the wait is over."""
    parser = FlagParser(
        "tokenize",
        "Tokenise the corpus of --config once into the token set --out, from which training reads.",
        "Processes share the work by --process_id and --num_processes and need to see nothing of each other but --out. "
        "Started again, a process does what is still missing. Then train with --config.data.source=tokens "
        "--config.data.path=<out> --config.data.validation_path= --config.data.tokenizer_path=. With --verify the "
        "finished set --out is read whole and held against the digests in its manifest; nothing is written.",
    )
    parser.add_argument("--config", help="configs/<file>.py, or configs/<file>.py:key=value,...; not with --verify")
    parser.add_argument("--out", required=True, help="directory of the token set: a path all processes see, or a URI")
    parser.add_argument("--shards", type=int, default=64, help="files of the training split; at best 0.2 to 1 GB each")
    parser.add_argument("--process_id", type=int, default=0, help="which process this is, from 0")
    parser.add_argument("--num_processes", type=int, default=1, help="how many processes share the work")
    parser.add_argument("--wait", type=float, default=86_400, help="seconds to wait for parts of other processes")
    parser.add_argument("--verify", action="store_true", help="check every byte of the finished set --out")
    flags, overrides = parser.parse_known_args(argv)
    if flags.verify:
        _verify(flags.out, [*(["--config"] if flags.config else []), *overrides])
        return 0
    if flags.config is None:
        parser.error("the following arguments are required: --config")
    run = load_run(flags.config, join_values(overrides))

    from sparsejax.data.tokenise import Outcome, tokenise

    outcome = tokenise(
        run.data,
        flags.out,
        shards=flags.shards,
        process_id=flags.process_id,
        num_processes=flags.num_processes,
        wait=flags.wait,
        notice=_say,
    )
    return START_AGAIN if outcome is Outcome.WAITING else 0


def _verify(out: str, others: list[str]) -> None:
    if others:
        raise ConfigError(f"{others[0]}: --verify takes --out alone, a set knows its tokenizer")

    from sparsejax.data.verify_set import verify_set

    verify_set(out, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
