"""Tokenizers: ids and back, their special ids, and what a directory keeps of them."""

import json
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import END_TOKEN, train_bpe
from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, open_tokenizer_file
from tests.data.conftest import texts

TEXT = "the active blocks,\n\n\ttwo  spaces: Ünï 漢字 🎈\r\n"


@pytest.fixture(params=["byte", "bpe", "t5", "llama", "hf"])
def tokenizer(request: pytest.FixtureRequest, t5_model: Path, llama_model: Path, tmp_path: Path) -> Tokenizer:
    if request.param == "byte":
        return ByteTokenizer()
    if request.param == "bpe":
        return train_bpe(texts(50), 300)
    if request.param == "hf":
        return open_tokenizer_file("hf", str(hub_file(tmp_path)))
    return open_tokenizer_file("sentencepiece", str(t5_model if request.param == "t5" else llama_model))


def hub_file(directory: Path, **special: object) -> Path:
    """A tokenizer.json as the hub has it, and beside it a tokenizer_config.json if special tokens are given."""
    train_bpe(texts(50), 300).save(directory)
    if special:
        (directory / "tokenizer_config.json").write_text(json.dumps(special))
    return directory / "tokenizer.json"


def test_every_document_ends_with_one_end_id(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode_documents(["one", TEXT, "the active blocks"])
    assert [ids[-1] for ids in encoded] == [tokenizer.end_id] * 3
    assert encoded[1][:-1] == tokenizer.encode(TEXT)
    assert all(0 <= token < tokenizer.vocab_size for ids in encoded for token in ids)
    assert all(tokenizer.end_id not in ids[:-1] and tokenizer.start_id not in ids[:-1] for ids in encoded)
    assert 0 <= tokenizer.start_id < tokenizer.vocab_size


def test_decoding_leaves_start_and_end_out(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the active blocks")
    assert tokenizer.decode([tokenizer.start_id, *ids, tokenizer.end_id]) == "the active blocks"


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "saved" / "here")
    loaded = load_tokenizer(tmp_path / "saved" / "here")
    assert type(loaded) is type(tokenizer) and loaded.digest == tokenizer.digest
    assert (loaded.vocab_size, loaded.start_id, loaded.end_id) == (
        tokenizer.vocab_size,
        tokenizer.start_id,
        tokenizer.end_id,
    )
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


def test_text_that_spells_the_end_token_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"a {END_TOKEN} b </s> c")
    assert tokenizer.end_id not in ids and tokenizer.start_id not in ids


def test_bytes_come_back_unless_the_model_normalises(llama_model: Path) -> None:
    for lossless in (
        ByteTokenizer(),
        train_bpe(texts(50), 300),
        open_tokenizer_file("sentencepiece", str(llama_model)),
    ):
        assert lossless.decode(lossless.encode(TEXT)) == TEXT
    assert ByteTokenizer().decode([0xC3]) == "\N{REPLACEMENT CHARACTER}"


def test_special_ids_of_sentencepiece_models(t5_model: Path, llama_model: Path) -> None:
    t5, llama = (open_tokenizer_file("sentencepiece", str(path)) for path in (t5_model, llama_model))
    assert (t5.start_id, t5.end_id) == (1, 1)
    assert (llama.start_id, llama.end_id) == (1, 2)
    assert t5.digest != llama.digest


def test_special_ids_of_hub_files(tmp_path: Path) -> None:
    plain = open_tokenizer_file("hf", str(hub_file(tmp_path / "plain")))
    assert plain.start_id == plain.end_id
    begin = {"content": "a", "lstrip": False}
    named = open_tokenizer_file("hf", str(hub_file(tmp_path / "named", bos_token=begin, eos_token="b")))
    assert (named.start_id, named.end_id) == (plain.encode("a")[0], plain.encode("b")[0])
    assert named.digest != plain.digest
    with pytest.raises(ConfigError, match="no end-of-text token"):
        open_tokenizer_file("hf", str(hub_file(tmp_path / "none", bos_token=None)))


@pytest.mark.parametrize(("kind", "message"), [("hf", "not a tokenizer.json"), ("sentencepiece", "not a Sentence")])
def test_files_that_are_no_tokenizer(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.tokenizer_path=.*no file matches"):
        open_tokenizer_file(kind, str(tmp_path / "absent"))
    (tmp_path / "noise").write_bytes(b"noise" * 10)
    with pytest.raises(ConfigError, match=f"data.tokenizer_path=.*{message}") as error:
        open_tokenizer_file(kind, str(tmp_path / "noise"))
    assert "\n" not in str(error.value)


def test_directories_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no usable tokenizer"):
        load_tokenizer(tmp_path / "absent")
    ByteTokenizer().save(tmp_path)
    (meta,) = tmp_path.iterdir()
    meta.write_text('{"kind": "later", "start_id": 0, "end_id": 0}')
    with pytest.raises(ConfigError, match="its kind 'later' is unknown"):
        load_tokenizer(tmp_path)
    meta.write_text('{"kind": "byte"}')
    with pytest.raises(ConfigError, match="lacks a field"):
        load_tokenizer(tmp_path)
