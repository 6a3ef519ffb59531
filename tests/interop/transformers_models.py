"""Tiny random models made by ``transformers``, and its logits. Imported only where torch and transformers are."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 32,
    "rms_norm_eps": 1e-5,
    # Large enough for every part of the model to show in the logits.
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # So short that the three branches of the rule are all taken.
    "original_max_position_embeddings": 16,
}
# Name -> settings of the model, and how it is saved.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "grouped": ({"num_key_value_heads": 2, "head_dim": 6}, {}),
    "tied": ({"tie_word_embeddings": True, "num_key_value_heads": 1}, {}),
    "llama3": ({"rope_scaling": _LLAMA3, "rope_theta": 500.0, "head_dim": 8}, {}),
    "linear": ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 1000.0}, {}),
    "sharded": ({"torch_dtype": "bfloat16"}, {"max_shard_size": "6KB"}),
}
TOKENS = (np.arange(48).reshape(2, 24) * 7 + np.arange(2)[:, None] * 3) % 32


def save_random_model(directory: Path, case: str) -> None:
    """A random model of a case, as ``save_pretrained`` writes it; its norms are not all ones."""
    settings, saving = CASES[case]
    settings = {**_SMALL, **settings}
    dtype = getattr(torch, settings.pop("torch_dtype", "float32"))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.to(dtype).save_pretrained(directory, **saving)


def logits_there(directory: Path, tokens: np.ndarray) -> np.ndarray:
    """Logits ``[B, T, V]`` of ``transformers`` in float32."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()
