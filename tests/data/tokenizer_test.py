"""Tokenizers: ids and back, their special ids, and what a directory keeps of them."""

import json
import random
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import END_TOKEN, train_bpe
from sparsejax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from sparsejax.data.tokenizer import (
    ByteTokenizer,
    Tokenizer,
    hub_tokenizer,
    load_tokenizer,
    open_tokenizer_file,
)
from sparsejax.data.tokenizer_meta import MAX_VOCABULARY
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


def hub_file(directory: Path) -> Path:
    """A tokenizer.json as the hub has it."""
    train_bpe(texts(50), 300).save(directory)
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


@pytest.mark.parametrize(("kind", "message"), [("hf", "not a tokenizer.json"), ("sentencepiece", "not a Sentence")])
def test_files_that_are_no_tokenizer(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.tokenizer_path=.*no file matches"):
        open_tokenizer_file(kind, str(tmp_path / "absent"))
    (tmp_path / "noise").write_bytes(b"noise" * 10)
    with pytest.raises(ConfigError, match=f"data.tokenizer_path=.*{message}") as error:
        open_tokenizer_file(kind, str(tmp_path / "noise"))
    assert "\n" not in str(error.value)


def test_text_that_a_tokenizer_cannot_encode_is_one_line(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    # As some editors save it.
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + words.to_str().encode())
    found = hub_tokenizer(tmp_path)
    assert found.encode_documents(["a a"]) == [[0, 0, 1]]
    for encodes in (lambda: found.encode("a b"), lambda: found.encode_documents(["a", "b"])):
        with pytest.raises(ConfigError, match=r"^tokenizer.json: cannot encode this text, name another tok[^\n]+$"):
            encodes()


def test_directories_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer_meta.json: there is no such file; restore"):
        load_tokenizer(tmp_path / "absent")
    ByteTokenizer().save(tmp_path)
    (meta,) = tmp_path.iterdir()
    meta.write_text('{"kind": "later", "start_id": 0, "end_id": 0}')
    with pytest.raises(ConfigError, match="its kind 'later' is unknown"):
        load_tokenizer(tmp_path)


def test_any_change_of_a_saved_tokenizer_is_one_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Bits turned, files cut short or emptied: refused, or the same tokenizer where a byte says nothing."""
    draw = random.Random(0)
    for number in range(25):
        folder = tmp_path / str(number)
        tokenizer.save(folder)
        path = draw.choice(sorted(folder.iterdir()))
        content = bytearray(path.read_bytes())
        damage = draw.randrange(4)
        if damage < 2:
            place = draw.randrange(min(len(content), 400) if draw.randrange(2) else len(content))
            content[place] ^= 1 << draw.randrange(8)
        else:
            content = content[: draw.randrange(len(content)) if damage == 2 else 0]
        path.write_bytes(content)
        try:
            found = load_tokenizer(folder, tokenizer.digest)
        except ConfigError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
        else:
            assert found.digest == tokenizer.digest and found.encode(TEXT) == tokenizer.encode(TEXT)
            assert (found.start_id, found.end_id) == (tokenizer.start_id, tokenizer.end_id)


@pytest.mark.parametrize("change", ["start_id", "end_id", "ids"])
def test_a_tokenizer_whose_ids_changed_is_refused(change: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    meta = json.loads((tmp_path / "tokenizer_meta.json").read_text())
    if change in meta:
        meta[change] += 1
        (tmp_path / "tokenizer_meta.json").write_text(json.dumps(meta))
    elif (tmp_path / "tokenizer.json").exists():
        saved = json.loads((tmp_path / "tokenizer.json").read_text())
        vocabulary = saved["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    else:
        meta["kind"] = "hf" if meta["kind"] == "byte" else "byte"
        (tmp_path / "tokenizer_meta.json").write_text(json.dumps(meta))
        meta["kind"] == "hf" and train_bpe(texts(5), 300).save(tmp_path)
    with pytest.raises(ConfigError, match=r"^tokenizer directory [^\n]*; restore the tokenizer's folder from a copy$"):
        load_tokenizer(tmp_path, tokenizer.digest)


def test_bytes_of_tokens_are_those_of_the_text(tokenizer: Tokenizer) -> None:
    """Exact for bytes and byte-level pieces; SentencePiece puts a space in front and may drop others."""
    sizes_V = tokenizer.token_bytes()
    assert sizes_V.shape == (tokenizer.vocab_size,) and sizes_V[[tokenizer.start_id, tokenizer.end_id]].max() == 0
    for text in [*texts(20), TEXT]:
        found, wanted = int(sizes_V[tokenizer.encode_documents([text])[0]].sum()), len(text.encode())
        if isinstance(tokenizer, SentencePieceTokenizer):
            assert wanted / 2 <= found <= wanted + 1
        else:
            assert found == wanted


@pytest.mark.parametrize("number", [MAX_VOCABULARY, 2**31, 2**32 - 1])
def test_ids_beyond_every_vocabulary_are_refused(number: int, tmp_path: Path) -> None:
    train_bpe(texts(5), 300).save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    saved["model"]["vocab"]["far"] = number
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    for opens in (load_tokenizer, hub_tokenizer):
        with pytest.raises(ConfigError, match=f"it has the id {number}, ids are below"):
            opens(tmp_path)
