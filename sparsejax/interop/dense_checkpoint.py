"""Whatever ``init.from`` may name, opened as the trainer wants it: a run, an export, a Hugging Face checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.config import ConfigError, ModelConfig, resolve
from sparsejax.data.tokenizer import Tokenizer, hub_tokenizer, load_tokenizer
from sparsejax.interop.export import from_run
from sparsejax.interop.from_export import is_export, read_export
from sparsejax.interop.llama_checkpoint import read_llama, to_params
from sparsejax.interop.llama_config import LlamaShape, read_config
from sparsejax.models.weight_table import mlp_width
from sparsejax.training.restore import run_tokenizer
from sparsejax.training.workdir import Notice, RunDirectory, read_manifest, run_directory

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint of any kind; fulfils ``training.dense_start.DenseCheckpoint``.

    Attributes:
      directory: where it lies, as the user wrote it.
      shape: its decoder.
      tokenizer: its own; None if it has none that can be read.
      tensor: a tensor by its name in ``llama_tensors``, float32, ``[out, in]`` for a matrix; 0 where a sparse one has
        no block.
    """

    directory: Path
    shape: LlamaShape
    tokenizer: Tokenizer | None
    tensor: Callable[[str], np.ndarray]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, padding included."""
        return self.shape.vocab_size

    def differences(self, model: ModelConfig) -> list[str]:
        """See ``LlamaShape.differences``."""
        return self.shape.differences(model)

    def params(self, *, vocab_size: int, mlp: int) -> Tree:
        """See ``llama_checkpoint.to_params``."""
        with _names_setting(self.directory):
            return to_params(self, vocab_size=vocab_size, mlp=mlp)


@contextmanager
def _names_setting(name: object) -> Iterator[None]:
    """Begin the line of an error with the setting, where it names only a file of the checkpoint."""
    try:
        yield
    except ConfigError as error:
        if "init.from" in str(error):
            raise
        raise ConfigError(f"init.from={name}: {error}") from error


def open_checkpoint(name: str, notice: Notice) -> OpenedCheckpoint:
    """Open what ``init.from`` names; weights are read when they are asked for, but for a run's, which are read now.

    Args:
      name: a run directory (also ``gs://...``), a directory that ``sparsejax export`` wrote, or one with a LLaMA
        checkpoint of Hugging Face's layout.
      notice: told what the user should know of a run's checkpoints.

    Raises:
      ConfigError: it is none of them, or is broken; or it is a run, and several processes would each read it.
    """
    with _names_setting(name):
        source = run_directory(name, "config.init.from")
        if is_run(source):
            if jax.process_count() > 1:
                raise ConfigError(
                    f"init.from={name}: is a run, which one process reads at a time; name what 'sparsejax export' makes"
                )
            run, manifest = from_run(source, notice), read_manifest(source)
            assert manifest is not None, "it is a run"
            return OpenedCheckpoint(Path(name), run.shape, run_tokenizer(source, manifest), run.tensor)
        if not isinstance(source, Path) or not source.is_dir():
            raise ConfigError(f"init.from={name}: no such directory; name a LLaMA checkpoint, an export or a run")
        if is_export(source):
            model = read_export(source)
            return OpenedCheckpoint(source, model.shape, load_tokenizer(source), model.tensor)
        checkpoint = read_llama(source)
        return OpenedCheckpoint(source, checkpoint.shape, _tokenizer_of(source), checkpoint.tensor)


def model_settings(name: str) -> dict[str, Any]:
    """The fields of ``ModelConfig`` that the checkpoint of ``init.from`` decides; its weights are not looked at.

    Raises:
      ConfigError: it is no checkpoint.
    """
    with _names_setting(name):
        source = run_directory(name, "config.init.from")
        if is_run(source):
            manifest = read_manifest(source)
            assert manifest is not None, "it is a run"
            run = resolve(manifest["config"])
            # A run's weights are as wide as its blocks made them.
            model = dataclasses.replace(run.model, mlp=mlp_width(run.model, run.topology))
            shared = {field.name for field in dataclasses.fields(LlamaShape)}
            return {key: value for key, value in dataclasses.asdict(model).items() if key in shared}
        if not isinstance(source, Path) or not source.is_dir():
            raise ConfigError(f"init.from={name}: no such directory; name a LLaMA checkpoint, an export or a run")
        return read_config(source).model_fields


def is_run(source: RunDirectory) -> bool:
    """Whether a directory is that of a run; a checkpoint of Hugging Face's has a ``config.json`` too."""
    return (source / "config.json").exists() and (source / "checkpoints").exists()


def _tokenizer_of(directory: Path) -> Tokenizer | None:
    """The tokenizer beside a checkpoint of the hub; None if there is none or it cannot be read here."""
    try:
        return hub_tokenizer(directory)
    except (ConfigError, OSError):
        return None
