"""LLaMA checkpoints into dense parameters, and what is said where that cannot be right."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.quickstart import get_config as quickstart
from sparsejax.config import ConfigError, resolve
from sparsejax.interop.llama_checkpoint import read_llama, to_params
from tests.interop.tiny import shard, tensors_of, write_checkpoint, write_config


def params_of(directory: Path, vocab_size: int = 40, mlp: int = 24) -> dict[str, Any]:
    return to_params(read_llama(directory), vocab_size=vocab_size, mlp=mlp)


def test_every_tensor_finds_its_place(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    params = params_of(tmp_path)
    modules = {("attention", "q"): "self_attn.q_proj", ("attention", "k"): "self_attn.k_proj"}
    modules |= {("attention", "v"): "self_attn.v_proj", ("attention", "o"): "self_attn.o_proj"}
    modules |= {("mlp", name): f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    for layer in range(2):
        for (room, name), module in modules.items():
            kernel = params["layers"][room][name]["kernel"][layer]
            np.testing.assert_array_equal(kernel, tensors[f"model.layers.{layer}.{module}.weight"].T)
        norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
        for name, module in norms.items():
            scale = params["layers"][name]["scale"][layer]
            np.testing.assert_array_equal(scale, tensors[f"model.layers.{layer}.{module}.weight"])
    np.testing.assert_array_equal(params["embed"]["embedding"], tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["norm"]["scale"], tensors["model.norm.weight"])
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["lm_head.weight"].T)
    assert params["layers"]["attention"]["q"]["kernel"].shape == (2, 16, 24)
    assert params["layers"]["attention"]["k"]["kernel"].shape == (2, 16, 12)


def test_shape_of_the_config(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 64}
    shape = read_llama_shape(tmp_path, rope_scaling=scaling, bos_token_id=1, eos_token_id=[2, 3])
    assert (shape.rope_scaling, shape.rope_factor, shape.rope_base) == ("llama3", 8.0, 1000.0)
    assert (shape.rope_original_length, shape.start_id, shape.end_ids) == (64, 1, (2, 3))
    newer = {"rope_parameters": {**scaling, "rope_theta": 5e5}, "rope_theta": ...}
    assert read_llama_shape(tmp_path, **newer).model_fields == shape.model_fields | {"rope_base": 5e5}
    bare = read_llama_shape(tmp_path, num_key_value_heads=..., head_dim=..., rope_theta=..., rms_norm_eps=...)
    assert (bare.kv_heads, bare.head_dim, bare.rope_base, bare.rms_eps) == (4, 4, 1e4, 1e-6)
    assert (bare.start_id, bare.end_ids, bare.tied_head) == (None, (), False)


def read_llama_shape(directory: Path, **changes: Any) -> Any:
    write_checkpoint(directory, **changes)
    return read_llama(directory).shape


@pytest.mark.parametrize(("dtype", "name"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")])
def test_narrow_floats_are_widened_exactly(tmp_path: Path, dtype: Any, name: str) -> None:
    narrow = {key: value.astype(dtype) for key, value in write_checkpoint(tmp_path).items()}
    save_file(narrow, tmp_path / "model.safetensors")
    kernel = params_of(tmp_path)["layers"]["mlp"]["up"]["kernel"]
    assert read_llama(tmp_path).dtype == name and kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel[1], narrow["model.layers.1.mlp.up_proj.weight"].astype(np.float32).T)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    whole = params_of(tmp_path)
    shard(tmp_path, tensors, 3)
    # As in the cache of the hub, whose folders hold links.
    (tmp_path / "model-00001-of-00003.safetensors").rename(tmp_path.parent / "blob")
    (tmp_path / "model-00001-of-00003.safetensors").symlink_to("../blob")
    sharded = params_of(tmp_path)
    np.testing.assert_array_equal(sharded["head"]["kernel"], whole["head"]["kernel"])
    np.testing.assert_array_equal(sharded["layers"]["mlp"]["down"]["kernel"], whole["layers"]["mlp"]["down"]["kernel"])


def test_a_tied_head_has_no_kernel(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in tensors and "head" not in params_of(tmp_path)
    # Old conversions stored the head all the same.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert "head" not in params_of(tmp_path)


def test_padding_of_the_vocabulary_is_cut_and_a_wider_mlp_is_zero(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    params = params_of(tmp_path, vocab_size=37, mlp=32)
    np.testing.assert_array_equal(params["embed"]["embedding"], tensors["model.embed_tokens.weight"][:37])
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["lm_head.weight"][:37].T)
    mlp = params["layers"]["mlp"]
    assert mlp["gate"]["kernel"].shape == (2, 16, 32) and mlp["down"]["kernel"].shape == (2, 32, 16)
    assert not mlp["up"]["kernel"][:, :, 24:].any() and not mlp["down"]["kernel"][:, 24:].any()
    np.testing.assert_array_equal(mlp["down"]["kernel"][0, :24], tensors["model.layers.0.mlp.down_proj.weight"].T)
    with pytest.raises(ConfigError, match="has 40 tokens, the tokenizer 41"):
        params_of(tmp_path, vocab_size=41)
    with pytest.raises(ConfigError, match=r"24 wide, model\.mlp=16"):
        params_of(tmp_path, mlp=16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model_type=gpt2: another architecture"),
        ({"model_type": ...}, "names no model_type"),
        ({"attention_bias": True}, "attention_bias=True: is not supported"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config="),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding_window=64"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type yarn"),
        ({"rope_scaling": {"type": "linear"}}, "rope type linear lacks factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope type llama3 lacks low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"hidden_size": ...}, "missing required field `hidden_size`"),
        ({"hidden_size": "wide"}, "Expected `int`, got `str` - at `$.hidden_size`"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3: must divide"),
        ({"head_dim": 5}, "head_dim=5: must be even"),
        ({"num_attention_heads": 3, "head_dim": ...}, "num_attention_heads=3: does not divide"),
        ({"eos_token_id": "end"}, "at `$.eos_token_id`"),
        ({"hidden_size": 0}, "at `$.hidden_size`"),
        ({"num_attention_heads": 0}, "at `$.num_attention_heads`"),
        ({"num_hidden_layers": 10**9}, "at `$.num_hidden_layers`"),
        ({"rope_scaling": [1]}, "rope_scaling: holds another value"),
        ({"rope_theta": -1}, "at `$.rope_theta`"),
        ({"model_type": ["llama\n"]}, "another architecture"),
    ],
)
def test_one_line_for_what_is_not_computed_here(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_config(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        read_llama(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    write_config(tmp_path)
    file, good = tmp_path / "model.safetensors", tensors_of(tmp_path)

    def said(tensors: dict[str, np.ndarray]) -> str:
        save_file(tensors, file)
        with pytest.raises(ConfigError) as caught:
            read_llama(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "lacks tensors model.norm.weight;" in said({k: v for k, v in good.items() if k != "model.norm.weight"})
    assert "lm_head.weight" in said({k: v for k, v in good.items() if k != "lm_head.weight"})
    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(24, np.float32)}
    assert "has unknown tensors model.layers.0.self_attn.q_proj.bias" in said(good | bias)
    third = {name.replace("layers.1", "layers.2"): value for name, value in good.items() if "layers.1" in name}
    assert "and 5 more" in said(good | third)
    assert "has shape [15], config.json asks for [16]" in said(good | {"model.norm.weight": np.ones(15, np.float32)})
    assert "is of type I32" in said(good | {"model.norm.weight": np.ones(16, np.int32)})
    save_file(good | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}, file)
    read_llama(tmp_path)


def test_files_that_are_absent_or_broken(tmp_path: Path) -> None:
    def said(directory: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            read_llama(directory)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such directory" in said(tmp_path / "absent")
    assert "has no config.json" in said(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json: is not JSON" in said(tmp_path)
    assert "convert it to safetensors first" in said(write_config(tmp_path))
    tensors = write_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "is no whole safetensors file" in said(tmp_path)
    shard(tmp_path, tensors, 2)
    index = tmp_path / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    told["weight_map"]["lm_head.weight"] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(told))
    assert "names tensors that their shard lacks" in said(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "lacks the shards model-00002-of-00002.safetensors" in said(tmp_path)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}))
    assert "names the file '../elsewhere.safetensors', which is not in its folder" in said(tmp_path)


def test_differences_name_the_fields_that_do_not_fit(tmp_path: Path) -> None:
    shape = read_llama_shape(tmp_path)
    model = resolve(quickstart().to_dict()).model
    fitting = dataclasses.replace(model, **shape.model_fields)
    assert shape.differences(fitting) == []
    # A wider MLP is filled with zeros, and settings of a scaling that is not used decide nothing.
    assert shape.differences(dataclasses.replace(fitting, mlp=32, rope_factor=2.0)) == []
    other = dataclasses.replace(fitting, heads=2, tied_head=True, mlp=8)
    assert shape.differences(other) == [
        "model.mlp=8: the checkpoint has 24",
        "model.heads=2: the checkpoint has 4",
        "model.tied_head=True: the checkpoint has False",
    ]
    scaled = dataclasses.replace(shape, rope_scaling="linear", rope_factor=4.0)
    assert len(scaled.differences(fitting)) == 2
