"""The ``config.json`` of a Hugging Face LLaMA checkpoint: read with every doubt answered, written for ``transformers``.

What a key means when it is absent is what ``LlamaConfig`` of ``transformers`` takes for it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sparsejax.config import ConfigError, ModelConfig
from sparsejax.files.json_records import convert_record, read_record
from sparsejax.files.text import one_line

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"

# Both are this decoder where no window slides; a Mistral checkpoint has the tensor names of LLaMA.
_MODEL_TYPES = ("llama", "mistral")
_ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}
_LLAMA3 = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# Key of config.json -> the value that this decoder computes; absent means the same.
_ONLY: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": None,
    "quantization_config": None,
    "partial_rotary_factor": 1.0,
}

_FIX = "copy the checkpoint again"
_Size = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Ids = int | list[int] | None


class _Config(msgspec.Struct):
    """The keys of ``config.json`` that decide sizes; null means absent."""

    hidden_size: _Size
    intermediate_size: _Size
    num_attention_heads: _Size
    num_hidden_layers: Annotated[int, msgspec.Meta(ge=1, lt=2**16)]
    vocab_size: _Size
    num_key_value_heads: _Size | None = None
    head_dim: _Size | None = None
    rms_norm_eps: _Positive | None = None
    rope_theta: _Positive | None = None
    tie_word_embeddings: bool | None = None
    max_position_embeddings: _Size | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: _Ids = None


class _Rope(msgspec.Struct):
    """``rope_parameters`` or ``rope_scaling``."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Positive | None = None
    factor: _Positive | None = None
    low_freq_factor: _Positive | None = None
    high_freq_factor: _Positive | None = None
    original_max_position_embeddings: _Size | None = None


class _Generation(msgspec.Struct):
    eos_token_id: _Ids = None


@dataclasses.dataclass(frozen=True)
class LlamaShape:
    """What a LLaMA checkpoint says of its decoder. Fields up to ``tied_head`` are those of ``ModelConfig``.

    Attributes:
      hidden: width of the residual stream.
      mlp: inner width of the SwiGLU layer.
      heads: query heads.
      kv_heads: key and value heads; divides ``heads``.
      head_dim: width of one head; ``heads * head_dim`` need not be ``hidden``.
      layers: decoder layers.
      rope_base: base of the rotary frequencies.
      rope_scaling: ``"none"``, ``"linear"`` or ``"llama3"``, see ``models.layers.rope_frequencies``.
      rope_factor: of ``linear`` and ``llama3``; 1 without scaling.
      rope_low_frequency, rope_high_frequency, rope_original_length: of ``llama3``; 1, 4 and 8192 otherwise.
      rms_eps: added to the mean square in every norm.
      tied_head: the head is the embedding's transpose.
      vocab_size: rows of the embedding, padding included.
      longest: positions the model was made for (``max_position_embeddings``); nothing here depends on it.
      start_id: id of the begin-of-text token, None if there is none.
      end_ids: ids that end a text; empty if none is named.
    """

    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    rope_base: float
    rope_scaling: str
    rope_factor: float
    rope_low_frequency: float
    rope_high_frequency: float
    rope_original_length: int
    rms_eps: float
    tied_head: bool
    vocab_size: int
    longest: int
    start_id: int | None
    end_ids: tuple[int, ...]

    @property
    def model_fields(self) -> dict[str, Any]:
        """The fields of ``ModelConfig`` that a checkpoint decides, ready for ``dataclasses.replace`` or a config."""
        shared = {field.name for field in dataclasses.fields(ModelConfig)}
        return {name: value for name, value in dataclasses.asdict(self).items() if name in shared}

    def differences(self, model: ModelConfig) -> list[str]:
        """``model.field=value: the checkpoint has other`` for every field in which a configured model differs.

        The settings of a rope scaling count only where it is used. An ``mlp`` above the checkpoint's is none: a run
        rounds its width up, and ``to_params`` fills the rest with zeros.
        """
        used = {"none": (), "linear": ("rope_factor",)}
        unused = {"rope_factor", "rope_low_frequency", "rope_high_frequency", "rope_original_length"}
        unused -= set(used[self.rope_scaling]) if self.rope_scaling in used else unused
        lines = []
        for name, value in self.model_fields.items():
            own = getattr(model, name)
            fits = own >= value if name == "mlp" else own == value
            if not fits and name not in unused:
                lines.append(f"model.{name}={own}: the checkpoint has {value}")
        return lines


def read_config(directory: Path) -> LlamaShape:
    """The decoder that ``config.json`` of a directory describes.

    Raises:
      ConfigError: there is none, it is broken, or it describes something that this decoder does not compute.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{directory}: has no {CONFIG_FILE}; name the directory of a LLaMA checkpoint")
    found = read_record(path, dict[str, Any], fix=_FIX)
    if "model_type" not in found:
        raise ConfigError(f"{path}: names no model_type; name the directory of a LLaMA checkpoint")
    if found["model_type"] not in _MODEL_TYPES:
        raise ConfigError(
            f"{path}: model_type={_short(found['model_type'])}: another architecture; only "
            f"{', '.join(_MODEL_TYPES)} is read"
        )
    for key, only in _ONLY.items():
        if key in found and found[key] != only:
            raise ConfigError(f"{path}: {key}={_short(found[key])}: is not supported, only {only} is")
    return _shape(path, found)


def end_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end a text by ``config.json`` or by ``generation_config.json``, where instruct models name more.

    Raises:
      ConfigError: one of them is broken.
    """
    generation = directory / GENERATION_FILE
    more = read_record(generation, _Generation, fix=_FIX).eos_token_id if generation.is_file() else None
    return tuple(dict.fromkeys([*read_config(directory).end_ids, *_listed(more)]))


def config_json(shape: LlamaShape, dtype: str) -> dict[str, Any]:
    """The ``config.json`` that ``transformers`` opens; ``read_config`` of it gives ``shape`` back.

    Rotary settings are written the way that releases 4 and 5 and other readers understand.
    """
    scaling: dict[str, Any] | None = None
    if shape.rope_scaling != "none":
        scaling = {"rope_type": shape.rope_scaling, "factor": shape.rope_factor}
    if scaling is not None and shape.rope_scaling == "llama3":
        scaling |= {"low_freq_factor": shape.rope_low_frequency, "high_freq_factor": shape.rope_high_frequency}
        scaling |= {"original_max_position_embeddings": shape.rope_original_length}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": shape.start_id,
        "eos_token_id": shape.end_ids[0] if len(shape.end_ids) == 1 else list(shape.end_ids) or None,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "max_position_embeddings": shape.longest,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.rms_eps,
        "rope_scaling": scaling,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied_head,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _shape(path: Path, found: dict[str, Any]) -> LlamaShape:
    told = convert_record(found, _Config, name=path, fix=_FIX)
    hidden, heads = told.hidden_size, told.num_attention_heads
    if told.head_dim is None and hidden % heads:
        raise ConfigError(f"{path}: num_attention_heads={heads}: does not divide hidden_size={hidden}; give head_dim")
    starts = _listed(told.bos_token_id)
    shape = LlamaShape(
        hidden=hidden,
        mlp=told.intermediate_size,
        heads=heads,
        kv_heads=told.num_key_value_heads or heads,
        head_dim=told.head_dim or hidden // heads,
        layers=told.num_hidden_layers,
        **_rope(path, found, told.rope_theta),
        rms_eps=told.rms_norm_eps or 1e-6,
        tied_head=bool(told.tie_word_embeddings),
        vocab_size=told.vocab_size,
        longest=told.max_position_embeddings or 2048,
        start_id=starts[0] if starts else None,
        end_ids=tuple(_listed(told.eos_token_id)),
    )
    if heads % shape.kv_heads:
        raise ConfigError(
            f"{path}: num_key_value_heads={shape.kv_heads}: must divide num_attention_heads={heads}; {_FIX}"
        )
    if shape.head_dim % 2:
        raise ConfigError(f"{path}: head_dim={shape.head_dim}: must be even; {_FIX}")
    return shape


def _rope(path: Path, found: dict[str, Any], theta: float | None) -> dict[str, Any]:
    """Rotary settings, from ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before)."""
    given: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        if key in found and found[key] is not None:
            given |= convert_record(found[key], dict[str, Any], name=f"{path}: {key}", fix=_FIX)
    told = convert_record(given, _Rope, name=f"{path}: rope_parameters", fix=_FIX)
    kind = told.rope_type or told.type or "default"
    if kind not in _ROPE_TYPES:
        raise ConfigError(f"{path}: rope type {_short(kind)}: is not supported, only {', '.join(_ROPE_TYPES)} are")
    for key, only in _ONLY.items():
        if key in given and given[key] != only:
            raise ConfigError(f"{path}: {key}={_short(given[key])}: is not supported, only {only} is")
    # A scaling that does not say how much is broken, not a default.
    needed = {"linear": ("factor",), "llama3": ("factor", *_LLAMA3)}
    for key in needed[kind] if kind in needed else ():
        if getattr(told, key) is None:
            raise ConfigError(f"{path}: rope type {kind} lacks {key}")
    return {
        "rope_base": told.rope_theta or theta or 10000.0,
        "rope_scaling": _ROPE_TYPES[kind],
        "rope_factor": told.factor if kind in needed else 1.0,
        "rope_low_frequency": told.low_freq_factor or 1.0,
        "rope_high_frequency": told.high_freq_factor or 4.0,
        "rope_original_length": told.original_max_position_embeddings or 8192,
    }


def _listed(told: _Ids) -> list[int]:
    """An id, a list of them, or null, as a list."""
    return told if isinstance(told, list) else [] if told is None else [told]


def _short(value: Any) -> str:
    return one_line(value, 40)
