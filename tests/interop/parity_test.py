"""Logits and ids that ``transformers`` computed once (``transformers_golden.py``), against ours."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparsejax.data.tokenizer import load_tokenizer
from sparsejax.interop.export import export
from sparsejax.interop.exported_model import ExportedModel
from sparsejax.interop.hf_files import write_hf
from sparsejax.interop.llama_checkpoint import read_llama, to_params
from sparsejax.interop.llama_tensors import linear_shapes
from sparsejax.interop.run_weights import RunWeights
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid
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
    # It is of before there were digests, which are what is new.
    for path in (GOLDEN / "export").iterdir():
        again = (tmp_path / "again" / path.name).read_bytes()
        if path.name == "sparsejax.json":
            facts = json.loads(again)
            assert len(facts.pop("files")) == 7 and facts == json.loads(path.read_bytes())
        else:
            assert again == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["export", "grouped", "tied"])
def test_dense_parameters_of_an_import_are_exported_byte_for_byte(name: str, tmp_path: Path) -> None:
    checkpoint = read_llama(GOLDEN / name)
    shape = checkpoint.shape
    params = to_params(checkpoint, vocab_size=shape.vocab_size, mlp=shape.mlp)
    grids = {kind: BlockGrid(sizes[::-1], (1, 1)) for kind, sizes in linear_shapes(shape).items()}
    dense = {kind: SparseWeight(kind, grid, grid.cells, grid.cells) for kind, grid in grids.items()}
    weights = RunWeights(params, {}, dense, shape.layers)
    model = ExportedModel(shape, {}, weights.masks(), weights.tensor, {}, "float32")
    write_hf(tmp_path, model, "float32", 10**9)
    assert (tmp_path / "model.safetensors").read_bytes() == (GOLDEN / name / "model.safetensors").read_bytes()
    assert not (tmp_path / "topology.safetensors").exists()
