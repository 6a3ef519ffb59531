"""The same model there and here, with ``transformers`` itself. Collected where it is installed, see conftest.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparsejax.cli.main import main
from sparsejax.data.bpe import train_bpe
from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, open_tokenizer_file
from sparsejax.interop.hf_tokenizer import PROBES, SPELLED, tokenizer_files
from sparsejax.interop.packed import PackedModel
from sparsejax.models import functional
from sparsejax.training.restore import restore_run
from tests.data.conftest import llama_model, texts
from tests.interop.dense import logits_here
from tests.interop.transformers_models import CASES, TOKENS, logits_there, save_random_model
from tests.interop.untrained import write_run
from tests.training.tiny import write_text

__all__ = ["llama_model"]


@pytest.mark.parametrize("case", CASES)
def test_a_model_made_there_gives_its_logits_here(case: str, tmp_path: Path) -> None:
    save_random_model(tmp_path, case)
    np.testing.assert_allclose(logits_here(tmp_path, TOKENS), logits_there(tmp_path, TOKENS), rtol=0, atol=2e-5)


def logits_of_run(workdir: Path, tokens: np.ndarray) -> np.ndarray:
    trained = restore_run(workdir, print)
    model = functional.merge(trained.recipe.graphdef, trained.state.params, trained.state.topology)
    return np.asarray(jax.jit(model)(jnp.asarray(tokens)))


def check_export(workdir: Path, out: Path) -> None:
    """Logits there are those of the run, from either format."""
    tokens = np.random.default_rng(0).integers(0, 256, (2, 16))
    here = logits_of_run(workdir, tokens)
    assert main(["export", f"--workdir={workdir}", f"--out={out / 'hf'}"]) == 0
    np.testing.assert_allclose(logits_there(out / "hf", tokens), here, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_kv_heads": 1, "model_tied_head": True, "topology_shards": 2},
        {"model_head_dim": 12, "model_rope_scaling": "llama3", "model_rope_factor": 8.0}
        | {"model_rope_original_length": 16, "model_rope_base": 500.0},
        {"model_rope_scaling": "linear", "model_rope_factor": 2.0, "topology_block": (1, 1)},
        {"topology_storage": "dense_master", "topology_nm": (2, 4), "topology_method": "sr_ste"},
        {"topology_storage": "monarch", "topology_method": "monarch"},
    ],
    ids=["grouped-tied-shares", "llama3-wide-heads", "linear-unstructured", "two-of-four", "monarch"],
)
def test_an_export_gives_the_logits_of_its_run_there(changes: dict, tmp_path: Path) -> None:
    workdir, _ = write_run(tmp_path, **changes)
    check_export(workdir, tmp_path)


def test_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_text(tmp_path / "text.txt")
    write_text(tmp_path / "validation.txt", seed=1, lines=20)
    paths = {"path": "text.txt", "validation_path": "validation.txt", "cache_dir": "cache"}
    widths = {"hidden": 16, "mlp": 32, "heads": 2, "kv_heads": 2, "head_dim": 8, "layers": 2}
    flags = [f"--config.data.{key}={tmp_path / name}" for key, name in paths.items()]
    flags += [f"--config.model.{key}={value}" for key, value in widths.items()]
    flags += ["--config.topology.block=4,4", "--config.topology.density=0.5", "--config.topology.every=2"]
    flags += ["--config.data.source=text", "--config.data.vocab_size=300", "--config.data.sequence_length=16"]
    flags += ["--config.train.steps=8", "--config.train.batch_size=4", "--config.train.eval_tokens=128"]
    flags += ["--config.mesh.fsdp=1"]
    assert main(["train", "--config=configs/quickstart.py", *flags, f"--workdir={tmp_path / 'run'}"]) == 0
    check_export(tmp_path / "run", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    own = load_tokenizer(tmp_path / "run" / "tokenizer")
    text = "the sparse model"
    assert tokenizer(text).input_ids == [own.start_id, *own.encode(text)]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    made = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert made.shape[1] > len(own.encode(text)) + 1
    # The packed file fills the same model.
    assert main(["export", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'packed'}", "--format=packed"]) == 0
    weights = PackedModel(tmp_path / "packed" / "model.packed.safetensors").state_dict()
    missing = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    assert not missing.missing_keys and not missing.unexpected_keys
    # The run can be made again from the file in its export.
    again = ["train", f"--config={tmp_path / 'hf' / 'train_config.py'}", f"--workdir={tmp_path / 'again'}"]
    assert main(again) == 0
    assert main(["export", f"--workdir={tmp_path / 'again'}", f"--out={tmp_path / 'hf-again'}"]) == 0
    same = (tmp_path / "hf" / "model.safetensors").read_bytes()
    assert (tmp_path / "hf-again" / "model.safetensors").read_bytes() == same


@pytest.mark.parametrize("kind", ["byte", "bpe", "llama"])
def test_ids_there(kind: str, tmp_path: Path, llama_model: Path) -> None:
    tokenizer: Tokenizer = ByteTokenizer() if kind == "byte" else train_bpe(texts(50), 300)
    if kind == "llama":
        tokenizer = open_tokenizer_file("sentencepiece", str(llama_model))
    for name, content in tokenizer_files(tokenizer, 64, print).items():
        (tmp_path / name).write_bytes(content)
    there = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*PROBES, SPELLED, *texts(20)):
        assert there(text).input_ids == [tokenizer.start_id, *tokenizer.encode(text)], text
        assert there(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
        ids = tokenizer.encode(text)
        assert there.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert (there.bos_token_id, there.eos_token_id) == (tokenizer.start_id, tokenizer.end_id)
    assert len(there) == tokenizer.vocab_size
