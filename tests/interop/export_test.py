"""Exports of a run: what the directories hold, there and back again, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import ByteTokenizer, load_tokenizer
from sparsejax.interop.export import export
from sparsejax.interop.exported_model import FACTS_FILE, Dtype, ExportedModel
from sparsejax.interop.from_export import read_export
from sparsejax.interop.hf_files import parse_size
from sparsejax.interop.llama_config import read_config
from sparsejax.models import functional
from sparsejax.topology.blocks import to_dense
from sparsejax.training.restore import restore_run
from tests.interop.dense import logits_here
from tests.interop.untrained import write_run
from tests.training.bucket_test import Bucket, registered  # noqa: F401

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop" / "export"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its exports beside it: ``hf``, ``packed`` and ``bfloat16`` (in shards)."""
    directory = tmp_path_factory.mktemp("export")
    workdir, _ = write_run(directory, model_kv_heads=1, topology_rules=(r"mlp\.down=1.0",), topology_shards=2)
    assert main(["export", f"--workdir={workdir}", f"--out={directory / 'hf'}"]) == 0
    assert main(["export", f"--workdir={workdir}", f"--out={directory / 'packed'}", "--format=packed"]) == 0
    wide = ["--dtype=bfloat16", "--shard-size=6KB"]
    assert main(["export", f"--workdir={workdir}", f"--out={directory / 'bfloat16'}", *wide]) == 0
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_directory_holds_what_the_run_computes_with(source: Path) -> None:
    trained = restore_run(source / "run", print)
    model = functional.merge(trained.recipe.graphdef, trained.state.params, trained.state.topology)
    layer = jax.tree.map(lambda leaf: leaf[1], model.layers)
    tensors, masks = load_file(source / "hf" / "model.safetensors"), load_file(source / "hf" / "topology.safetensors")
    np.testing.assert_array_equal(tensors[UP], np.asarray(to_dense(layer.mlp.up.weight)).T)
    np.testing.assert_array_equal(tensors["lm_head.weight"], np.asarray(model.head.kernel[...]).T)
    np.testing.assert_array_equal(tensors["model.layers.1.mlp.down_proj.weight"], layer.mlp.down.kernel[...].T)
    assert UP in masks and "model.layers.1.mlp.down_proj.weight" not in masks and len(masks) == 12
    expanded = np.kron(masks[UP], np.ones((4, 4)))
    assert masks[UP].sum() == 16 and not tensors[UP][expanded == 0].any() and (tensors[UP][expanded == 1] != 0).all()
    assert not any(np.signbit(array[array == 0]).any() for array in tensors.values())


def test_facts_and_config(source: Path) -> None:
    facts = json.loads((source / "hf" / "sparsejax.json").read_text())
    assert facts["weights"]["mlp.up"] | {"parameters": 0} == {
        "shape": [16, 32],
        "block": [4, 4],
        "places": 32,
        "active": [16, 16],
        "density": 0.5,
        "parameters": 0,
        "storage": "packed",
    }
    assert facts["weights"]["mlp.down"]["active"] is None and facts["weights"]["mlp.down"]["density"] == 1.0
    held = sum(row["parameters"] for row in facts["weights"].values())
    assert facts["parameters"]["active_non_embedding"] == held + 5 * 16
    assert (facts["step"], facts["steps"], facts["finished"], facts["method"]) == (0, 12, False, "static")
    config = json.loads((source / "hf" / "config.json").read_text())
    assert (config["num_key_value_heads"], config["vocab_size"], config["torch_dtype"]) == (1, 257, "float32")
    assert (config["bos_token_id"], config["eos_token_id"], config["max_position_embeddings"]) == (256, 256, 16)
    assert json.loads((source / "bfloat16" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["hf", "packed", "bfloat16"])
def test_an_export_of_an_export_is_the_same_bytes(source: Path, tmp_path: Path, name: str) -> None:
    form = "packed" if name == "packed" else "hf"
    export(source / name, tmp_path / "again", form=form, dtype=None, shard_bytes=6000, notice=print)
    if name == "hf":
        # In one file, as it was.
        assert (tmp_path / "again" / "model.safetensors.index.json").exists()
        export(source / name, tmp_path / "whole", form=form, dtype=None, shard_bytes=10**9, notice=print)
    assert contents(tmp_path / ("whole" if name == "hf" else "again")) == contents(source / name)


def test_either_format_gives_the_other(source: Path, tmp_path: Path) -> None:
    for name, form in (("packed", "hf"), ("hf", "packed")):
        export(source / name, tmp_path / form, form=form, dtype=None, shard_bytes=10**9, notice=print)
        assert contents(tmp_path / form) == contents(source / form)


def test_bfloat16_in_shards(source: Path) -> None:
    exact, folder = load_file(source / "hf" / "model.safetensors"), source / "bfloat16"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    rounded = {name: array for shard in shards for name, array in load_file(folder / shard).items()}
    assert set(rounded) == set(exact) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in rounded.values())
    for name, array in exact.items():
        np.testing.assert_array_equal(rounded[name], array.astype(ml_dtypes.bfloat16))


def test_nothing_is_left_where_an_export_fails(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    cases = {
        f"--workdir={tmp_path / 'absent'}": "holds no run",
        f"--workdir={source / 'run'} --shard-size=big": "--shard-size=big: must read",
        f"--workdir={source / 'run'} --dtype=int8": "invalid choice",
        f"--workdir={source / 'bfloat16'} --dtype=float32": "was rounded to bfloat16",
        f"--workdir={source / 'hf'} --weights=ema": "is an export, which holds one model",
        f"--workdir={source / 'run'} --weights=ema": "keeps no average of its weights",
        f"--workdir={source / 'run'} --out={source / 'hf'}": "exists already",
        f"--workdir={source / 'run'} --out=/proc/out": "cannot be written",
    }
    for flags, said in cases.items():
        assert main(["export", f"--out={out}", *flags.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert list(tmp_path.iterdir()) == []


def test_an_export_into_a_bucket_is_the_same_bytes(source: Path) -> None:
    Bucket.store.clear()
    export(source / "packed", "gs://bucket/out", form="packed", dtype=None, shard_bytes=1, notice=print)
    held = {name.removeprefix("/bucket/out/"): bytes(each.getvalue()) for name, each in Bucket.store.items()}
    assert held == contents(source / "packed")
    with pytest.raises(ConfigError, match="exists already"):
        export(source / "hf", "gs://bucket/out", form="hf", dtype=None, shard_bytes=1, notice=print)
    export(source / "hf", "gs://bucket/out", form="hf", dtype=None, shard_bytes=10**9, notice=print, overwrite=True)
    assert {name.removeprefix("/bucket/out/") for name in Bucket.store} == set(contents(source / "hf"))


@pytest.mark.parametrize("name", ["hf", "packed", "bfloat16"])
def test_every_file_that_decides_the_model_is_held_against_its_digest(source: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source / name, folder)
    deciding = [path for path in folder.iterdir() if path.name not in ("README.md", "train_config.py", FACTS_FILE)]
    assert {"config.json", "tokenizer.json", "generation_config.json"} < {path.name for path in deciding}
    for path in deciding:
        good = path.read_bytes()
        middle = len(good) // 2
        for content in (good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :], good + b" ", b""):
            path.write_bytes(content)
            with pytest.raises(ConfigError, match=re.escape(f"{path.name}: was changed since it was exported")):
                read_export(folder)
        path.unlink()
        with pytest.raises(ConfigError, match=re.escape(f"lacks {path.name}")):
            read_export(folder)
        path.write_bytes(good)
    (folder / "README.md").write_text("A card of one's own.")
    read_export(folder)
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model-00009-of-00009.safetensors is not of this export"):
        read_export(folder)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda facts: facts | {"schema": 1}, "another version of sparsejax"),
        (lambda facts: facts | {"density": "half"}, r"Expected `float`, got `str` - at `\$.density`"),
        (lambda facts: facts | {"weights": [1]}, r"at `\$.weights`"),
        (lambda facts: {key: value for key, value in facts.items() if key != "losses"}, "missing required field `los"),
        (lambda facts: facts | {"files": {"../x": "0"}}, "names the file '../x', which is not in its folder"),
        (lambda facts: [facts], "Expected `object`, got `array`"),
    ],
)
def test_facts_that_are_none_are_one_line(source: Path, tmp_path: Path, change: Any, part: str) -> None:
    shutil.copytree(source / "hf", tmp_path / "copy")
    path = tmp_path / "copy" / FACTS_FILE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=part) as caught:
        read_export(tmp_path / "copy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "dtype", "refused"),
    [
        (np.nan, "float32", "has 1 of 2 values that are not finite numbers"),
        (np.inf, "bfloat16", "has 1 of 2 values that are not finite numbers"),
        (3.4e38, "bfloat16", "as bfloat16 has 1 of 2 values that are not finite numbers; export it as float32"),
        (3.4e38, "float32", ""),
        (3.38e38, "bfloat16", ""),
    ],
)
def test_values_that_are_not_finite_or_overflow_are_refused(value: float, dtype: Dtype, refused: str) -> None:
    tensor = np.array([value, 1.0], np.float32)
    model = ExportedModel(read_config(GOLDEN), {}, {}, lambda name: tensor, {}, "float32")
    if refused:
        with pytest.raises(ConfigError, match=refused):
            model.stored("lm_head.weight", dtype)
    else:
        assert np.isfinite(model.stored("lm_head.weight", dtype).astype(np.float32)).all()


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("1.5KB", 1500), ("64", 64)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_the_tokenizer_of_an_export_opens_here_too(source: Path) -> None:
    tokenizer = load_tokenizer(source / "hf")
    text = "two  spaces\n漢字 🎈 <|endoftext|>"
    assert tokenizer.encode(text) == ByteTokenizer().encode(text) and tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.vocab_size) == (256, 256, 257)


# What each weight is was tested above, and what a model of such weights computes in parity_test.py.
@pytest.mark.slow
def test_logits_of_an_import_are_those_of_the_run(source: Path) -> None:
    trained = restore_run(source / "run", print)
    model = functional.merge(trained.recipe.graphdef, trained.state.params, trained.state.topology)
    tokens = np.random.default_rng(0).integers(0, 257, (2, 16))
    np.testing.assert_allclose(logits_here(source / "hf", tokens), jax.jit(model)(jnp.asarray(tokens)), atol=2e-5)
