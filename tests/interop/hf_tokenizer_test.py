"""Tokenizers of every kind as the files of an export: equal ids, and what is said where they cannot be."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from sparsejax.data.bpe import END_TOKEN, train_bpe
from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, open_tokenizer_file
from sparsejax.interop.hf_tokenizer import PROBES, SPELLED, tokenizer_files
from tests.data.conftest import llama_model, t5_model, texts

# Real models where there are some, see tests/data/conftest.py.
__all__ = ["llama_model", "t5_model"]


def exported(tokenizer: Tokenizer, directory: Path) -> list[str]:
    """Write the files into ``directory``; returns the notices."""
    said: list[str] = []
    for name, content in tokenizer_files(tokenizer, 64, said.append).items():
        (directory / name).write_bytes(content)
    return said


@pytest.mark.parametrize("kind", ["byte", "bpe", "hf", "llama", "t5"])
def test_ids_are_equal(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = ByteTokenizer()
    if kind in ("bpe", "hf"):
        tokenizer = train_bpe(texts(50), 300)
    if kind == "hf":
        tokenizer.save(tmp_path)
        tokenizer = open_tokenizer_file("hf", str(tmp_path / "tokenizer.json"))
    if kind in ("llama", "t5"):
        tokenizer = open_tokenizer_file("sentencepiece", str(request.getfixturevalue(f"{kind}_model")))
    said = exported(tokenizer, tmp_path)
    assert said == [] or kind == "t5"
    loaded = load_tokenizer(tmp_path)
    assert (loaded.vocab_size, loaded.start_id, loaded.end_id) == (
        tokenizer.vocab_size,
        tokenizer.start_id,
        tokenizer.end_id,
    )
    for text in (*PROBES, *texts(20), *([] if said else [SPELLED])):
        assert loaded.encode(text) == tokenizer.encode(text), text
    # What transformers does with the file: the start id first, unless told otherwise.
    file = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert file.encode("the active blocks").ids == [tokenizer.start_id, *tokenizer.encode("the active blocks")]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert file.token_to_id(config["bos_token"]) == tokenizer.start_id
    assert file.token_to_id(config["eos_token"]) == tokenizer.end_id
    assert config["split_special_tokens"] is True and config["model_max_length"] == 64
    assert (tmp_path / "tokenizer.model").exists() == (kind in ("llama", "t5"))


def test_decoding_gives_the_text_back(tmp_path: Path, llama_model: Path) -> None:
    text = "the active blocks,\n\n\ttwo  spaces: Ünï 漢字 🎈\r\n"
    for number, tokenizer in enumerate(
        (ByteTokenizer(), train_bpe(texts(50), 300), open_tokenizer_file("sentencepiece", str(llama_model)))
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        exported(tokenizer, directory)
        assert load_tokenizer(directory).decode(tokenizer.encode(text)) == text


def test_a_given_template_makes_way_for_the_start_token(tmp_path: Path) -> None:
    train_bpe(texts(50), 300).save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    definition |= {"truncation": {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    tokenizer = open_tokenizer_file("hf", str(tmp_path / "tokenizer.json"))
    exported(tokenizer, tmp_path)
    file = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = file.encode("the active blocks", add_special_tokens=True).ids
    assert ids == [tokenizer.start_id, *tokenizer.encode("the active blocks")] and len(ids) > 2
    assert file.decode([tokenizer.end_id], skip_special_tokens=True) == ""
    assert file.id_to_token(tokenizer.end_id) == END_TOKEN


def test_one_line_where_a_model_cannot_be_translated(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts(50)), model_writer=model, vocab_size=60, model_type="char", minloglevel=2
    )
    path = tmp_path / "char.model"
    path.write_bytes(model.getvalue())
    tokenizer = open_tokenizer_file("sentencepiece", str(path))
    (said,) = exported(tokenizer, tmp_path)
    assert "neither Unigram nor BPE; only tokenizer.model is exported" in said
    assert not (tmp_path / "tokenizer.json").exists()
    assert load_tokenizer(tmp_path).encode("the blocks") == tokenizer.encode("the blocks")
