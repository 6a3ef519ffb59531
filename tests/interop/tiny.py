"""Tiny LLaMA checkpoints of Hugging Face's layout, made of random numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sparsejax.interop.llama_config import read_config
from sparsejax.interop.llama_tensors import tensor_shapes

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "num_hidden_layers": 2,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000.0,
}


def write_config(directory: Path, **changes: Any) -> Path:
    """``CONFIG`` with changes; a value of ``...`` removes its key."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not ...}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def tensors_of(directory: Path) -> dict[str, np.ndarray]:
    """Random float32 tensors of the shapes that the directory's config.json asks for."""
    random = np.random.default_rng(0)
    shapes = tensor_shapes(read_config(directory))
    return {name: random.standard_normal(sizes, np.float32) for name, sizes in shapes.items()}


def write_checkpoint(directory: Path, **changes: Any) -> dict[str, np.ndarray]:
    """A whole checkpoint in one file; returns its tensors."""
    tensors = tensors_of(write_config(directory, **changes))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return tensors


def shard(directory: Path, tensors: dict[str, np.ndarray], count: int) -> None:
    """The tensors in ``count`` files with an index, instead of one file."""
    names, weight_map = sorted(tensors), {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::count]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "model.safetensors").unlink(missing_ok=True)
