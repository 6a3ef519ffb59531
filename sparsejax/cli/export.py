"""``sparsejax export``: a trained model for ``transformers``, or as a file of its active blocks."""

from __future__ import annotations

import sys

from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import FlagParser
from sparsejax.cli.streams import display_of


def main(argv: list[str]) -> int:
    """Write the new directory and say how large it is; returns 0."""
    parser = FlagParser(
        "export",
        "The newest checkpoint of a run as a directory that others can use, with a model card.",
        "hf: what transformers opens unchanged, dense with true zeros, beside it block masks and metadata. "
        "packed: one file of active blocks, read with NumPy and safetensors. Both: docs/EXPORT.md.",
    )
    parser.add_argument("--workdir", required=True, help="run directory (or gs://bucket/run), or an earlier export")
    parser.add_argument("--out", required=True, help="new directory, also gs://bucket/export")
    parser.add_overwrite()
    parser.add_argument("--format", default="hf", choices=("hf", "packed"), help="default: hf")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="default: that of the source; float32 for a run"
    )
    parser.add_argument(
        "--weights", default="raw", choices=("raw", "ema"), help="of a run; ema: their average; default: raw"
    )
    parser.add_argument("--shard-size", default="5GB", help="largest file of tensors (hf), such as 500MB; default: 5GB")
    flags = parser.parse_args(argv)

    from sparsejax.interop.export import export
    from sparsejax.interop.hf_files import parse_size
    from sparsejax.training.workdir import run_directory

    console = plain_console(display_of(sys.stdout))

    def notice(text: str) -> None:
        console.print(text, soft_wrap=True)

    done = export(
        run_directory(flags.workdir),
        flags.out,
        form=flags.format,
        dtype=flags.dtype,
        shard_bytes=parse_size(flags.shard_size),
        notice=notice,
        weights=flags.weights,
        overwrite=flags.overwrite,
    )
    notice(
        f"{done.directory}: {done.bytes / 2**20:,.1f} MiB of tensors ({done.bytes / done.dense_bytes:.4f} of the dense "
        "model), with README.md, sparsejax.json and the tokenizer"
    )
    return 0
