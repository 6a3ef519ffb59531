"""A run's tokenizer as the files that ``transformers`` opens, giving equal ids.

``tokenizer("text")`` there is the start id and then the ids of the text, which is what every training row began with;
``add_special_tokens=False`` gives the ids alone. Text that spells a special token stays text, as in training.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer
from sparsejax.data.tokenizer_json import JsonTokenizer
from sparsejax.interop.sentencepiece_json import definition_of_sentencepiece
from sparsejax.training.workdir import Notice

_DEFINITION, _CONFIG, _META, _MODEL = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer_meta.json",
    "tokenizer.model",
)
_END_OF_BYTES = "<|endoftext|>"

# What a translated tokenizer must agree on: scripts, spaces, line ends, bytes of no letter.
PROBES = (
    "the active blocks,\n\n\ttwo  spaces: Ünï 漢字 🎈\r\n",
    "",
    " ",
    "  leading and trailing  ",
    "def f(x):\n    return x ** 2  # 3.14159\n",
    "¿Qué? Größe, ÆØÅ, \ufb01 ligature, \uff46\uff55\uff4c\uff4c width, ½, №",
    "Привет мир. שלום. مرحبا. नमस्ते. こんにちは。 안녕하세요",
    "\x00\x01\x7f\u200b\ufeff\u00a0",
    "aaaaaaaaaaaaaaaa 1234567890 !!!!???",
)
# Where a Unigram model has no piece for "<", its translation reads the special token that is spelled here.
SPELLED = "a </s> b <s> c <unk> d <pad> e <|endoftext|>"


def tokenizer_files(tokenizer: Tokenizer, longest: int, notice: Notice) -> dict[str, bytes]:
    """The files of a tokenizer, by name; ``load_tokenizer`` of the directory they are in gives it back.

    Args:
      tokenizer: of the run.
      longest: tokens of a training row, ``model_max_length`` of the exported one.
      notice: told in one line if ``transformers`` cannot have this tokenizer; the original is written alone then.
    """
    saved = _saved(tokenizer)
    if _DEFINITION in saved:
        definition = json.loads(saved[_DEFINITION])
    elif isinstance(tokenizer, ByteTokenizer):
        definition = _byte_definition()
    else:
        try:
            definition = _translated(saved[_MODEL], tokenizer, notice)
        except ValueError as error:
            notice(f"tokenizer: {error}; only {_MODEL} is exported, and transformers will not open it unchanged")
            return saved
    start, end = (_token(definition, token) for token in (tokenizer.start_id, tokenizer.end_id))
    definition |= {"truncation": None, "padding": None, "post_processor": _template(start, tokenizer.start_id)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
        "split_special_tokens": True,
    }
    meta = {"kind": JsonTokenizer.kind, "start_id": tokenizer.start_id, "end_id": tokenizer.end_id}
    contents = {_DEFINITION: definition, _CONFIG: config, _META: meta}
    # The model of a translated tokenizer goes along, for readers that want SentencePiece itself.
    originals = {_MODEL: saved[_MODEL]} if _MODEL in saved else {}
    return originals | {
        name: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode() for name, content in contents.items()
    }


def _saved(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Files that the tokenizer itself writes, by name."""
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(Path(directory))
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def _byte_definition() -> dict[str, Any]:
    """The 256 bytes as a BPE that merges nothing. Byte-level tokenizers write byte b as a letter of their alphabet."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {letter: byte for byte, letter in enumerate(byte_letters())}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary | {_END_OF_BYTES: ByteTokenizer.end_id}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([_END_OF_BYTES])
    return dict(json.loads(backend.to_str()))


def byte_letters() -> list[str]:
    """The letter of each byte: printable Latin-1 characters stand for themselves, the others for 256 and on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def _token(definition: dict[str, Any], token: int) -> str:
    """The spelling of an id."""
    import tokenizers

    spelling = tokenizers.Tokenizer.from_str(json.dumps(definition)).id_to_token(token)
    assert spelling is not None
    return str(spelling)


def _template(start: str, start_id: int) -> dict[str, Any]:
    """A post-processor that puts the start token in front."""
    special = {"SpecialToken": {"id": start, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {start: {"id": start, "ids": [start_id], "tokens": [start]}},
    }


def _translated(model: bytes, tokenizer: Tokenizer, notice: Notice) -> dict[str, Any]:
    """A SentencePiece model as ``tokenizer.json``; ``ValueError`` if a probe gets other ids than from ``tokenizer``."""
    definition = definition_of_sentencepiece(model)
    translated = JsonTokenizer(json.dumps(definition).encode(), tokenizer.start_id, tokenizer.end_id)
    if translated.vocab_size != tokenizer.vocab_size:
        raise ValueError(f"the SentencePiece model has {tokenizer.vocab_size} ids, translated {translated.vocab_size}")
    for text in PROBES:
        if translated.encode(text) != tokenizer.encode(text):
            raise ValueError(f"this SentencePiece model cannot be translated, {text[:20]!r} gets other ids")
    if translated.encode(SPELLED) != tokenizer.encode(SPELLED):
        notice("tokenizer: in transformers, text that spells a special token such as </s> gets the id of that token")
    return definition
