"""Logits of a LLaMA checkpoint, computed here from its import as a dense model."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np

from configs.quickstart import get_config
from sparsejax.config import resolve
from sparsejax.interop.llama_checkpoint import read_llama, to_params
from sparsejax.models import functional
from sparsejax.models.llama import Llama
from sparsejax.models.weight_table import weight_table


def logits_here(directory: Path, tokens: np.ndarray, vocab_size: int = 0) -> np.ndarray:
    """Float32 logits ``[B, T, V]`` of integer tokens ``[B, T]``; 0 tokens of a vocabulary means all."""
    checkpoint = read_llama(directory)
    run = resolve(get_config().to_dict())
    model = dataclasses.replace(run.model, **checkpoint.shape.model_fields)
    topology = dataclasses.replace(run.topology, density=1.0)
    vocab_size = vocab_size or checkpoint.shape.vocab_size
    build = partial(
        Llama, model, weight_table(model, topology), 0, 0, vocab_size=vocab_size, implementations={}, attention="xla"
    )
    params = to_params(checkpoint, vocab_size=vocab_size, mlp=model.mlp)
    graphdef = functional.abstract(build).graphdef
    with jax.default_matmul_precision("float32"):
        return np.asarray(jax.jit(lambda p, t: functional.merge(graphdef, p, {})(t))(params, tokens))
