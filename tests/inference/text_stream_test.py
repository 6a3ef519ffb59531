"""Pieces of text: put together they are the whole text, and none has half a character or half a stop string."""

import random

import pytest

from sparsejax.data.bpe import train_bpe
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.inference.text_stream import TextStream

TEXT = "the active blocks,\n\n\ttwo  spaces: Ünï 漢字 🎈\r\n"


def pieces(tokenizer, ids, context=(), stop=()):
    stream = TextStream(tokenizer, context, stop)
    return [*(stream.push(token) for token in ids), stream.close()], stream.stopped


def test_characters_come_whole():
    found, _ = pieces(ByteTokenizer(), "a漢b".encode())
    assert found == ["a", "", "", "漢", "b", ""]


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_pieces_are_the_text(name):
    tokenizer = ByteTokenizer() if name == "byte" else train_bpe([TEXT * 3], 280)
    ids = tokenizer.encode(TEXT)
    for cut in range(0, len(ids), 7):
        found, _ = pieces(tokenizer, ids[cut:], context=ids[:cut])
        whole = tokenizer.decode(ids)
        assert whole.endswith("".join(found)) and "�" not in "".join(found)
        assert len("".join(found)) >= len(whole) - len(tokenizer.decode(ids[:cut]).rstrip("�"))


def test_any_bytes_at_all():
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.choice((65, 0xE6, 0xBC, 0xA2, 0xFF, 0xF0)) for _ in range(12)]
        assert "".join(pieces(ByteTokenizer(), ids)[0]) == ByteTokenizer().decode(ids)


def test_broken_characters_come_with_the_end():
    assert pieces(ByteTokenizer(), "a漢".encode()[:-1]) == (["a", "", "", "�"], False)


def test_a_context_of_broken_bytes_is_not_given_again():
    assert pieces(ByteTokenizer(), b"ab", context=[0xFF] * 9)[0] == ["a", "b", ""]


def test_a_character_that_the_prompt_cut_is_given_whole():
    assert pieces(ByteTokenizer(), "漢".encode()[1:], context="a漢".encode()[:2])[0] == ["", "漢", ""]


@pytest.mark.parametrize(
    ("stop", "expected", "stopped"),
    [
        (("###",), "one ## two ", True),
        (("absent",), "one ## two ### three", False),
        (("###", "two"), "one ## ", True),  # the one that comes first
        (("three!",), "one ## two ### three", False),  # held back to the end, then given
        (("o",), "", True),
    ],
)
def test_text_ends_in_front_of_the_first_stop_string(stop, expected, stopped):
    found, ended = pieces(ByteTokenizer(), b"one ## two ### three", stop=stop)
    assert ("".join(found), ended) == (expected, stopped)


def test_what_may_become_a_stop_string_is_held_back():
    assert pieces(ByteTokenizer(), b"a##b", stop=("###",))[0] == ["a", "", "", "##b", ""]


def test_a_stop_string_in_the_prompt_is_no_stop():
    assert pieces(ByteTokenizer(), b"#x", context=b"##", stop=("###",))[0] == ["", "#x", ""]


class Words(ByteTokenizer):
    """Tokens are whole pieces of text; like SentencePiece it drops the space in front of the first."""

    pieces = (" one", " two", "! three ", "###")

    def decode(self, ids):
        return "".join(self.pieces[token] for token in ids).removeprefix(" ")


def test_a_space_is_written_by_what_precedes_it():
    assert pieces(Words(), [0, 1, 2, 0])[0] == ["one", " two", "! three ", " one", ""]
    assert pieces(Words(), [1], context=[0])[0] == [" two", ""]


def test_of_two_stop_strings_in_one_token_the_first_counts():
    assert pieces(Words(), [0, 2], stop=("three", "!")) == (["one", "", ""], True)
    assert pieces(Words(), [0, 2], stop=("!", "three")) == (["one", "", ""], True)


def test_empty_stop_strings_are_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        TextStream(ByteTokenizer(), [], ("",))
