"""Logits and ids that ``transformers`` computed once (``transformers_golden.py``), against ours."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparsejax.data.tokenizer import load_tokenizer
from sparsejax.interop.export import export
from tests.interop.dense import logits_here

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop"
CASES = ("plain", "grouped", "tied", "llama3", "linear", "sharded")


@pytest.mark.parametrize("case", CASES)
def test_logits_of_models_made_by_transformers(case: str) -> None:
    golden = np.load(GOLDEN / case / "logits.npz")
    assert np.abs(golden["logits"]).max() > 1
    np.testing.assert_allclose(logits_here(GOLDEN / case, golden["tokens"]), golden["logits"], rtol=0, atol=2e-5)


def test_logits_of_an_export_in_transformers() -> None:
    golden = np.load(GOLDEN / "export-in-transformers" / "logits.npz")
    assert np.abs(golden["logits"]).max() > 0.1
    np.testing.assert_allclose(logits_here(GOLDEN / "export", golden["tokens"]), golden["logits"], rtol=0, atol=2e-5)


def test_ids_of_an_export_in_transformers() -> None:
    tokenizer = load_tokenizer(GOLDEN / "export")
    for text, ids in json.loads((GOLDEN / "export-in-transformers" / "ids.json").read_text()).items():
        assert [tokenizer.start_id, *tokenizer.encode(text)] == ids, text


def test_an_old_export_is_exported_again_byte_for_byte(tmp_path: Path) -> None:
    export(GOLDEN / "export", tmp_path / "again", form="hf", dtype=None, shard_bytes=10**9, notice=print)
    for path in (GOLDEN / "export").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
