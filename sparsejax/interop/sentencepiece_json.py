"""A SentencePiece model as a ``tokenizer.json``: Unigram and BPE models, with their normaliser and byte fallback."""

from __future__ import annotations

import base64
import json
from typing import Any

# Of ``sentencepiece_model.proto``: kinds of model, and kinds of piece.
_UNIGRAM, _BPE = 1, 2
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE = "▁"
# Below every score: a control piece is never the best way to read a text.
_NEVER = -1e9


def definition_of_sentencepiece(model: bytes) -> dict[str, Any]:
    """The content of a ``tokenizer.json`` that encodes like the model.

    Whoever calls compares ids on texts: SentencePiece has more settings than are translated here.

    Raises:
      ValueError: there is none; one phrase that says why.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]  # made at import
    kind = proto.trainer_spec.model_type
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError("the SentencePiece model is neither Unigram nor BPE")
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise ValueError("the SentencePiece model writes spaces as suffixes")
    return _tokenizer_json(proto, _unigram(proto) if kind == _UNIGRAM else _bpe(proto))


def _tokenizer_json(proto: Any, model: Any) -> dict[str, Any]:
    import tokenizers
    from tokenizers import AddedToken, decoders

    backend = tokenizers.Tokenizer(model)
    prefix = proto.normalizer_spec.add_dummy_prefix
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    backend.add_special_tokens([piece.piece for piece in proto.pieces if piece.type == _CONTROL])
    own = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    backend.add_tokens([AddedToken(piece, normalized=False) for piece in own])
    definition: dict[str, Any] = json.loads(backend.to_str())
    return definition | {"normalizer": _normalizer(proto.normalizer_spec)}


def _unigram(proto: Any) -> Any:
    from tokenizers import models

    pieces = [(piece.piece, _NEVER if piece.type == _CONTROL else piece.score) for piece in proto.pieces]
    return models.Unigram(pieces, proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback)


def _bpe(proto: Any) -> Any:
    """Merges are every way to put a piece together from two, the piece with the highest score first."""
    from tokenizers import models

    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    normal = [piece for piece in proto.pieces if piece.type == _NORMAL]
    merges: list[tuple[str, str]] = []
    for piece in sorted(normal, key=lambda each: -each.score):
        text = piece.piece
        splits = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(left, right) for left, right in splits if left in ids and right in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    fallback = proto.trainer_spec.byte_fallback
    return models.BPE(vocab=ids, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)


def _normalizer(spec: Any) -> dict[str, Any] | None:
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": _SPACE if spec.escape_whitespaces else " "})
    if spec.escape_whitespaces:
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    return {"type": "Sequence", "normalizers": steps} if steps else None
