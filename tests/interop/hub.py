"""Tiny checkpoints as others leave them on the hub: a LLaMA of random numbers with a byte-level tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.interop.hf_tokenizer import byte_letters
from tests.interop.tiny import write_checkpoint

END = "<|endoftext|>"
# Ids of the 256 bytes and the end.
TOKENS = 257


def write_hub(directory: Path, *, rows: int = TOKENS, **config: Any) -> dict[str, np.ndarray]:
    """Weights, ``config.json`` and tokenizer; the embedding has ``rows`` rows. Returns the tensors."""
    plain = {"vocab_size": rows, "bos_token_id": 256, "eos_token_id": 256, "max_position_embeddings": 64}
    tensors = write_checkpoint(directory, **plain | config)
    write_tokenizer(directory)
    return tensors


def write_tokenizer(directory: Path, merges: Sequence[tuple[str, str]] = (), extra: Sequence[str] = ()) -> None:
    """A byte-level ``tokenizer.json`` with these merges and special tokens, and its configuration."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {letter: byte for byte, letter in enumerate(byte_letters())}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END, *extra])
    made.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
