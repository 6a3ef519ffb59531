"""What ``init.from`` may name: a Hugging Face checkpoint, an export, a run; and the settings that are taken from it."""

import json

import jax
import numpy as np
import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.config import ConfigError
from sparsejax.interop.dense_checkpoint import is_run, model_settings, open_checkpoint
from sparsejax.interop.export import export
from sparsejax.interop.llama_checkpoint import read_llama, to_params
from tests.interop.tiny import write_checkpoint, write_config
from tests.interop.untrained import write_run

BASE = "configs/base.py"


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_checkpoint_of_the_hub(tmp_path):
    write_checkpoint(tmp_path / "hub")
    checkpoint = open_checkpoint(str(tmp_path / "hub"), print)
    assert (checkpoint.vocab_size, checkpoint.tokenizer) == (40, None)
    equal(checkpoint.params(vocab_size=40, mlp=24), to_params(read_llama(tmp_path / "hub"), vocab_size=40, mlp=24))
    settings = model_settings(str(tmp_path / "hub"))
    assert settings["hidden"] == 16 and settings["rope_base"] == 1000.0 and not is_run(tmp_path / "hub")


@pytest.mark.slow
def test_a_run_and_its_exports_are_the_same_dense_weights(tmp_path):
    """A sparse run starts another one as the dense matrices it stands for, zeros included."""
    workdir, recipe = write_run(tmp_path, topology_density=0.5)
    notices = []
    run = open_checkpoint(str(workdir), notices.append)
    params = run.params(vocab_size=257, mlp=32)
    assert is_run(workdir) and run.tokenizer.digest and notices == []
    expected = jax.tree.map(lambda leaf: leaf.shape, recipe.dense.abstract.params)
    assert jax.tree.map(np.shape, params) == expected
    zeros = float((params["layers"]["mlp"]["up"]["kernel"] == 0).mean())
    assert zeros == 1 - recipe.weights["mlp.up"].density
    for form in ("hf", "packed"):
        out = tmp_path / form
        export(workdir, out, form=form, dtype=None, shard_bytes=2**30, notice=print)
        again = open_checkpoint(str(out), print)
        equal(again.params(vocab_size=257, mlp=32), params)
        assert again.tokenizer.vocab_size == 257 and again.differences(recipe.run.model) == []
        settings = {name: getattr(recipe.run.model, name) for name in model_settings(str(out))}
        assert model_settings(str(workdir)) == model_settings(str(out)) == settings


@pytest.mark.parametrize("of", [open_checkpoint, lambda name, notice: model_settings(name)])
def test_what_is_no_checkpoint_is_one_line(tmp_path, of):
    with pytest.raises(
        ConfigError, match=r"^init\.from=\S+nowhere: no such directory; name a LLaMA checkpoint, an exp"
    ):
        of(str(tmp_path / "nowhere"), print)
    with pytest.raises(ConfigError, match=r"config\.json"):
        of(str(tmp_path), print)


def test_unset_sizes_are_those_of_the_checkpoint(tmp_path):
    start = f"--config.init.from={write_config(tmp_path / 'hub', tie_word_embeddings=True)}"
    dense = ["--config.topology.method=dense", "--config.topology.density=1.0"]
    model = load_run(BASE, [start, *dense]).model
    assert (model.hidden, model.mlp, model.heads, model.kv_heads, model.head_dim, model.layers) == (16, 24, 4, 2, 6, 2)
    assert (model.rope_base, model.rms_eps, model.tied_head) == (1000.0, 1e-5, True)
    # What a flag says stays, so that the trainer can say that it differs.
    model = load_run(BASE, [start, *dense, "--config.model.layers=3", "--config.model.rms_eps=1e-6"]).model
    assert (model.layers, model.rms_eps, model.hidden) == (3, 1e-6, 16)
    # A config with all its sizes keeps all its settings.
    model = load_run("configs/quickstart.py", [start]).model
    assert (model.hidden, model.rope_base) == (128, 1e4)


def test_the_hubs_tokenizer_is_read_if_it_can_be(tmp_path):
    write_checkpoint(tmp_path / "hub")
    (tmp_path / "hub" / "tokenizer.json").write_text(json.dumps({"model": "nothing"}))
    assert open_checkpoint(str(tmp_path / "hub"), print).tokenizer is None


def test_every_error_of_a_checkpoint_names_the_setting(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name in (tmp_path / "empty", tmp_path / "broken", tmp_path / "none", "gs://", "a\nb", ""):
        for call in (lambda name=name: open_checkpoint(str(name), print), lambda name=name: model_settings(str(name))):
            with pytest.raises(ConfigError, match=r"init\.from="):
                call()
