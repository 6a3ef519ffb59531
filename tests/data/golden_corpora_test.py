"""Corpora that were read before text, compression and records had one rule give the same tokens and digests still.

``tests/golden/corpora/digests.json`` was written by version 011658c from the files beside it, with bytes as tokens and
a validation fraction of 0.3, or with the last file named for validation. Old token caches and runs are found by these
digests.
"""

import json
from pathlib import Path

import pytest

from sparsejax.data.cache import FileDigests
from sparsejax.data.splits import split_corpus
from sparsejax.data.token_files import open_token_files
from sparsejax.data.tokenizer import ByteTokenizer

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "corpora"
DIGESTS = json.loads((GOLDEN / "digests.json").read_text())


@pytest.mark.parametrize("name", DIGESTS)
def test_tokens_and_digests_are_what_they_were(name: str, data_config, tmp_path: Path) -> None:
    kind, *patterns = name.split(" ")
    path, validation_path = (
        ",".join(f"{GOLDEN}/{pattern}" for pattern in value.split(",") if pattern) for value in (*patterns, "")[:2]
    )
    config = data_config(source=kind, path=path, validation_path=validation_path, validation_fraction=0.3)
    digests = FileDigests(tmp_path / "digests")
    corpus = split_corpus(config, digests)
    files = open_token_files(tmp_path / "tokens", corpus, ByteTokenizer(), digests, lambda line: None)
    (entry,) = (path.name for path in (tmp_path / "tokens").iterdir())
    assert DIGESTS[name] == {
        "data_digest": corpus.digest(),
        "entry": entry,
        "train": files["train"].meta.sha256,
        "validation": files["validation"].meta.sha256,
        "documents": [files[split].meta.documents for split in ("train", "validation")],
    }
