"""The ``config.json`` of a Hugging Face LLaMA checkpoint: read with every doubt answered, written for ``transformers``.

What a key means when it is absent is what ``LlamaConfig`` of ``transformers`` takes for it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from sparsejax.config import ConfigError, ModelConfig

CONFIG_FILE = "config.json"

# Both are this decoder where no window slides; a Mistral checkpoint has the tensor names of LLaMA.
_MODEL_TYPES = ("llama", "mistral")
_ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}
# Key of config.json -> the value that this decoder computes; absent means the same.
_ONLY: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": None,
    "quantization_config": None,
    "partial_rotary_factor": 1.0,
}

_Value = TypeVar("_Value", int, float, bool)


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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{directory}: has no {CONFIG_FILE}; name the directory of a LLaMA checkpoint") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); copy the checkpoint again") from error
    if not isinstance(found, dict) or "model_type" not in found:
        raise ConfigError(f"{path}: names no model_type; name the directory of a LLaMA checkpoint")
    if found["model_type"] not in _MODEL_TYPES:
        raise ConfigError(
            f"{path}: model_type={found['model_type']}: another architecture; only {', '.join(_MODEL_TYPES)} is read"
        )
    for key, only in _ONLY.items():
        if key in found and found[key] != only:
            raise ConfigError(f"{path}: {key}={_short(found[key])}: is not supported, only {only} is")
    return _shape(path, found)


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
    def number(key: str, default: _Value | None, kind: type[_Value] = int) -> _Value:  # type: ignore[assignment]
        return _number(path, found, key, default, kind)

    hidden, heads = number("hidden_size", None), number("num_attention_heads", None)
    if not _given(found, "head_dim") and hidden % heads:
        raise ConfigError(f"{path}: num_attention_heads={heads}: does not divide hidden_size={hidden}; give head_dim")
    shape = LlamaShape(
        hidden=hidden,
        mlp=number("intermediate_size", None),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        layers=number("num_hidden_layers", None),
        **_rope(path, found),
        rms_eps=number("rms_norm_eps", 1e-6, float),
        tied_head=number("tie_word_embeddings", False, bool),
        vocab_size=number("vocab_size", None),
        longest=number("max_position_embeddings", 2048),
        start_id=number("bos_token_id", 0) if _given(found, "bos_token_id") else None,
        end_ids=_ids(path, found),
    )
    for key, value in (("num_key_value_heads", shape.kv_heads), ("head_dim", shape.head_dim)):
        if value < 1 or (key == "num_key_value_heads" and heads % value) or (key == "head_dim" and value % 2):
            rule = "must be even" if key == "head_dim" else f"must divide num_attention_heads={heads}"
            raise ConfigError(f"{path}: {key}={value}: {rule}")
    return shape


def _rope(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings, from ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before)."""
    told = found["rope_parameters"] if _given(found, "rope_parameters") else {}
    told = {**(found["rope_scaling"] if _given(found, "rope_scaling") else {}), **told}
    kind = told["rope_type"] if "rope_type" in told else told["type"] if "type" in told else "default"
    if kind not in _ROPE_TYPES:
        raise ConfigError(f"{path}: rope type {kind}: is not supported, only {', '.join(_ROPE_TYPES)} are")
    for key, only in _ONLY.items():
        if key in told and told[key] != only:
            raise ConfigError(f"{path}: {key}={_short(told[key])}: is not supported, only {only} is")
    base = told if "rope_theta" in told else found
    scaled = kind != "default"
    # A scaling that does not say how much is broken, not a default.
    needed = {"llama3": ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")}
    for key in ("factor", *(needed[kind] if kind in needed else ())) if scaled else ():
        if key not in told:
            raise ConfigError(f"{path}: rope type {kind} lacks {key}")
    return {
        "rope_base": _number(path, base, "rope_theta", 10000.0, float),
        "rope_scaling": _ROPE_TYPES[kind],
        "rope_factor": _number(path, told, "factor", 1.0, float) if scaled else 1.0,
        "rope_low_frequency": _number(path, told, "low_freq_factor", 1.0, float),
        "rope_high_frequency": _number(path, told, "high_freq_factor", 4.0, float),
        "rope_original_length": _number(path, told, "original_max_position_embeddings", 8192, int),
    }


def _ids(path: Path, found: dict[str, Any]) -> tuple[int, ...]:
    """``eos_token_id`` is an id, a list of them, null, or absent."""
    if not _given(found, "eos_token_id"):
        return ()
    told = found["eos_token_id"]
    ids = told if isinstance(told, list) else [told]
    if not all(type(each) is int for each in ids):
        raise ConfigError(f"{path}: eos_token_id={_short(told)}: must be an id or a list of ids")
    return tuple(ids)


def _number(path: Path, found: dict[str, Any], key: str, default: _Value | None, kind: type[_Value]) -> _Value:
    """The value of a key; ``default`` where it is absent or null, and an error if there is no default."""
    if not _given(found, key):
        if default is None:
            raise ConfigError(f"{path}: {key} is missing; name the directory of a LLaMA checkpoint")
        return default
    value = found[key]
    if kind is float and type(value) is int:
        return kind(value)
    if type(value) is not kind:
        raise ConfigError(f"{path}: {key}={_short(value)}: must be of type {kind.__name__}")
    return value


def _given(found: dict[str, Any], key: str) -> bool:
    return key in found and found[key] is not None


def _short(value: Any) -> str:
    return str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."
