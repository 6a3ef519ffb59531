"""A run and its exports open as the same model, block for block; what is no model is one line."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.data.bpe import train_bpe
from sparsejax.interop.open_model import _weight, open_model
from tests.interop.tiny import write_checkpoint
from tests.interop.untrained import write_run


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with grouped queries and a dense kind, and its exports beside it."""
    directory = tmp_path_factory.mktemp("open")
    workdir, _ = write_run(directory, model_kv_heads=1, topology_rules=(r"mlp\.down=1.0",))
    for kind in ("hf", "packed"):
        assert main(["export", f"--workdir={workdir}", f"--out={directory / kind}", f"--format={kind}"]) == 0
    return directory


@pytest.mark.parametrize("kind", ["hf", "packed"])
def test_an_export_is_the_run_block_for_block(directory: Path, kind: str) -> None:
    run, export = open_model(directory / "run", print), open_model(directory / kind, print)
    assert jax.tree.structure(run.params) == jax.tree.structure(export.params)
    assert jax.tree.structure(run.topology) == jax.tree.structure(export.topology)
    jax.tree.map(np.testing.assert_array_equal, (run.params, run.topology), (export.params, export.topology))
    densities = ({name: weight.density for name, weight in opened.weights.items()} for opened in (run, export))
    assert next(densities) == next(densities)
    assert export.weights["mlp.up"].packed and export.weights["mlp.down"].dense
    assert (export.length, export.tokenizer.vocab_size, export.model.compute_dtype) == (16, 257, "float32")
    assert run.tokenizer.encode("Ünï") == export.tokenizer.encode("Ünï")


def test_a_checkpoint_of_others_opens_with_its_tokenizer(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path, vocab_size=300, max_position_embeddings=128, tie_word_embeddings=True)
    with pytest.raises(ConfigError, match="has no tokenizer"):
        open_model(tmp_path, print)
    train_bpe(["the sparse model reads a block"] * 9, 280).save(tmp_path)
    (tmp_path / "tokenizer_meta.json").unlink()
    opened = open_model(tmp_path, print)
    np.testing.assert_array_equal(
        opened.params["layers"]["attention"]["k"]["kernel"][1], tensors["model.layers.1.self_attn.k_proj.weight"].T
    )
    assert "head" not in opened.params and opened.topology == {} and opened.length == 128
    assert all(weight.dense for weight in opened.weights.values())
    assert opened.tokenizer.vocab_size <= opened.params["embed"]["embedding"].shape[0] == 300


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        open_model(tmp_path, print)
    write_checkpoint(tmp_path / "small")
    train_bpe(["the sparse model reads a block"] * 9, 280).save(tmp_path / "small")
    with pytest.raises(ConfigError, match=r"its tokenizer has 2\d\d tokens, its embedding 40"):
        open_model(tmp_path / "small", print)


def test_layers_with_unlike_numbers_of_blocks_have_slots_for_the_fullest() -> None:
    masks = [np.array([[True, False], [False, False]]), np.array([[True, True], [False, True]])]
    weight = _weight("mlp.up", (8, 16), masks)
    assert (weight.grid.block, weight.capacity, weight.count) == ((4, 8), 3, 2)
    assert not weight.shrinks
    assert _weight("mlp.up", (8, 16), [np.ones((2, 2), bool)]).shrinks
