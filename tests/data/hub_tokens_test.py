"""End and begin of text, wherever a folder of the hub names them; odd files are one line."""

import itertools
import json
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.bpe import END_TOKEN, train_bpe
from sparsejax.data.tokenizer import hub_tokenizer, open_tokenizer_file
from tests.data.conftest import texts

NAMING = ("tokenizer_config.json", "special_tokens_map.json")
COUNTING = ("generation_config.json", "config.json")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, int]]:
    """A tokenizer.json with the end token and letters, any of which may be named."""
    tokenizer = train_bpe(texts(50), 300)
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save(folder)
    return (folder / "tokenizer.json").read_bytes(), tokenizer.vocabulary


def folder(path: Path, definition: bytes, **files: object) -> Path:
    path.mkdir()
    (path / "tokenizer.json").write_bytes(definition)
    for name, content in files.items():
        (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def spelled(file: str, token: str, number: int, form: int) -> object:
    """A token in one of the ways that a file may name it."""
    if file in NAMING:
        return (token, {"content": token, "lstrip": False})[form % 2]
    return (number, [number, 0])[form % 2]


@pytest.mark.parametrize("named", [*itertools.product((True, False), repeat=4)])
@pytest.mark.parametrize("form", [0, 1])
def test_the_first_file_that_names_the_end_is_believed(
    named: tuple[bool, ...], form: int, vocabulary: tuple[bytes, dict[str, int]], tmp_path: Path
) -> None:
    definition, ids = vocabulary
    files = (*NAMING, *COUNTING)
    said = {}
    for file, letter, names in zip(files, "abcd", named, strict=True):
        key = "eos_token" if file in NAMING else "eos_token_id"
        # A file that names none is absent in one form, and in the other says null beside other things.
        if names:
            said[file] = {key: spelled(file, letter, ids[letter], form), "model_max_length": 10**30}
        elif form:
            said[file] = {key: None}
    path = folder(tmp_path / "hub", definition, **{file.removesuffix(".json"): each for file, each in said.items()})
    expected = next((ids[letter] for letter, names in zip("abcd", named, strict=True) if names), ids[END_TOKEN])
    assert hub_tokenizer(path).end_id == hub_tokenizer(path).start_id == expected
    assert open_tokenizer_file("hf", str(path / "tokenizer.json")).digest == hub_tokenizer(path).digest


@pytest.mark.parametrize(
    ("files", "start"),
    [
        ({"tokenizer_config": {"eos_token": "b", "bos_token": "a"}}, "a"),
        # As it always was: a config that names the end, and no begin that is there, has none.
        ({"tokenizer_config": {"eos_token": "b"}, "special_tokens_map": {"bos_token": "a"}}, "b"),
        ({"tokenizer_config": {"eos_token": "b", "bos_token": "nowhere"}}, "b"),
        ({"special_tokens_map": {"eos_token": "b"}, "config": {"bos_token_id": 0}}, END_TOKEN),
        ({"config": {"eos_token_id": [1, 2], "bos_token_id": 3}}, 3),
        ({"tokenizer_config": {"bos_token": "a"}}, "a"),
    ],
)
def test_begin_of_text(files: dict, start: str | int, vocabulary: tuple[bytes, dict[str, int]], tmp_path: Path) -> None:
    definition, ids = vocabulary
    found = hub_tokenizer(folder(tmp_path / "hub", definition, **files))
    assert found.start_id == (ids[start] if isinstance(start, str) else start)


@pytest.mark.parametrize("form", ["decoder", "added_tokens"])
def test_a_token_that_only_the_added_ones_have(
    form: str, vocabulary: tuple[bytes, dict[str, int]], tmp_path: Path
) -> None:
    definition, ids = vocabulary
    files: dict[str, dict] = {"tokenizer_config": {"eos_token": "<|im_end|>"}}
    if form == "decoder":
        files["tokenizer_config"]["added_tokens_decoder"] = {str(len(ids)): {"content": "<|im_end|>"}}
    else:
        files["added_tokens"] = {"<|im_end|>": len(ids)}
    found = hub_tokenizer(folder(tmp_path / "hub", definition, **files))
    assert (found.end_id, found.vocab_size) == (len(ids), len(ids) + 1)
    # Its spelling stays text.
    assert found.end_id not in found.encode("the <|im_end|> of")
    found.save(tmp_path / "saved")
    assert hub_tokenizer(tmp_path / "saved").vocabulary == found.vocabulary


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, "tokenizer_config.json names '<|im_end|>', which its voc"),
        ({"config": {"eos_token_id": 5000}}, "config.json has eos_token_id 5000, which its vocabulary does not have"),
        ({"config": {"eos_token_id": -1}}, "config.json has eos_token_id -1, which"),
        ({"tokenizer_config": {"eos_token": "x" * 9}, "added_tokens": {"x" * 9: 9000}}, "cannot have the id 9000"),
        ({"tokenizer_config": []}, "tokenizer_config.json: holds another value than it should"),
        ({"tokenizer_config": 3}, "tokenizer_config.json: holds another"),
        ({"tokenizer_config": {"eos_token": {}}}, "tokenizer_config.json: holds another"),
        ({"tokenizer_config": {"eos_token": ["a"]}}, "tokenizer_config.json: holds another"),
        ({"tokenizer_config": {"eos_token": 1}}, "tokenizer_config.json: holds another"),
        ({"tokenizer_config": "{"}, "tokenizer_config.json: is not JSON"),
        ({"tokenizer_config": '{"eos_token": ' + "[" * 100_000}, "tokenizer_config.json: "),
        ({"special_tokens_map": {"eos_token": {"content": None}}}, "special_tokens_map.json: holds another"),
        ({"added_tokens": {"a": "b"}, "tokenizer_config": {"eos_token": "zz"}}, "added_tokens.json: holds another"),
        ({"generation_config": {"eos_token_id": "a"}}, "generation_config.json: holds another"),
        ({"config": {"eos_token_id": [1.5]}}, "config.json: holds another"),
    ],
)
def test_odd_folders_are_one_line(
    files: dict, message: str, vocabulary: tuple[bytes, dict[str, int]], tmp_path: Path
) -> None:
    path = folder(tmp_path / "hub", vocabulary[0], **files)
    for opens in (lambda: hub_tokenizer(path), lambda: open_tokenizer_file("hf", str(path / "tokenizer.json"))):
        with pytest.raises(ConfigError) as error:
            opens()
        assert message in str(error.value) and "\n" not in str(error.value)


def test_a_vocabulary_without_any_end(vocabulary: tuple[bytes, dict[str, int]], tmp_path: Path) -> None:
    without = vocabulary[0].replace(b"<|endoftext|>", b"<|nothing|>")
    with pytest.raises(ConfigError, match=r"no end-of-text token: none of </s>, .*, and no file beside it names"):
        hub_tokenizer(folder(tmp_path / "hub", without))
