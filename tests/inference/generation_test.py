"""Texts: why they end, what a batch writes, what reaches the terminal and the file."""

import io

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.inference import writing
from sparsejax.inference.generation import Piece, generate
from sparsejax.inference.prompts import read_prompts
from sparsejax.inference.sampling import GREEDY, Sampling
from sparsejax.inference.writing import Request, write_texts
from tests.inference.tiny_engine import tiny

BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def engine():
    return tiny(vocab=257).engine()


@pytest.fixture
def scripted(monkeypatch):
    """Rows whose tokens are the bytes of given texts; ``None`` is the end token."""

    def script(*texts):
        ids = [[*text.encode(), BYTES.end_id] for text in texts]
        steps = iter(zip(*(row + [0] * (40 - len(row)) for row in ids), strict=True))

        class Scripted:
            def __init__(self, *_, **__):
                self.finished = []

            def step(self):
                return next(steps)

            def finish(self, row):
                self.finished.append(row)

        monkeypatch.setattr("sparsejax.inference.generation.Continuation", Scripted)

    return script


def pieces(engine, prompts, **changes):
    arguments = {"new_tokens": 20, "length": 16, "sampling": GREEDY} | changes
    return list(generate(engine, BYTES, prompts, **arguments))


def test_every_row_ends_for_its_own_reason(engine, scripted):
    scripted("all of it", "up to END of it", "0123456789" * 3)
    found = pieces(engine, ["a", "b", "c"], stop=["END"])
    texts = ["".join(piece.text for piece in found if piece.row == row) for row in range(3)]
    assert texts == ["all of it", "up to ", "01234567890123456789"]
    last = {piece.row: piece for piece in found if piece.end}
    assert [(last[row].end, last[row].tokens) for row in range(3)] == [("end", 9), ("stop", 9), ("length", 20)]
    assert len(last) == sum(piece.end is not None for piece in found) == 3


def test_other_ids_that_end_a_text_end_it_too(engine, scripted):
    scripted("ab!cd", "a?b")
    found = pieces(engine, ["x", "y"], new_tokens=5, end_ids=(ord("!"), ord("?")))
    last = [piece for piece in found if piece.end]
    assert [(piece.row, piece.end, piece.tokens) for piece in last] == [(1, "end", 1), (0, "end", 2)]
    assert "".join(piece.text for piece in found if piece.row == 0) == "ab"


def test_a_stop_string_held_back_is_text_when_the_tokens_run_out(engine, scripted):
    scripted("ab##cd")
    (*_, last) = pieces(engine, ["x"], new_tokens=4, stop=["###"])
    assert last == Piece(0, "##", "length", 4)


def test_prompts_draw_with_seeds_of_their_own(engine):
    how = Sampling(temperature=1.0)
    together = pieces(engine, ["same", "same"], new_tokens=5, sampling=how, seed=3)
    second = pieces(engine, ["same"], new_tokens=5, sampling=how, seed=4)
    assert [piece.text for piece in together if piece.row == 1] == [piece.text for piece in second]
    assert [piece.text for piece in together if piece.row == 0] != [piece.text for piece in second]
    with pytest.raises(ValueError, match="seed=-1"):
        pieces(engine, ["x"], seed=-1)


def written(engine, prompts, **changes):
    fields = {"new_tokens": 20, "length": 64, "sampling": GREEDY, "seed": 7, "stop": (), "batch_size": 2} | changes
    terminal, notices = io.StringIO(), []
    rows = write_texts(engine, BYTES, Request(prompts, **fields), terminal, notices.append)
    return terminal.getvalue(), rows, notices


def test_texts_are_written_in_the_order_of_their_prompts(engine, scripted):
    scripted("slow to come", "é")
    text, rows, notices = written(engine, ["A:", "B:"])
    assert text == "A:slow to come\n---\nB:é\n" and notices == []
    assert rows == [
        {"prompt": "A:", "text": "slow to come", "end": "end", "tokens": 12, "seed": 7},
        {"prompt": "B:", "text": "é", "end": "end", "tokens": 2, "seed": 8},
    ]


def test_batches_follow_one_another_and_long_texts_are_announced(engine):
    text, rows, notices = written(engine, ["one", "two", "three"], new_tokens=3, length=8)
    assert [row["seed"] for row in rows] == [7, 8, 9] and {row["tokens"] for row in rows} <= {0, 1, 2, 3}
    assert text.count("\n---\n") == 2 and text.endswith("\n")
    assert notices == [
        "sparsejax: up to 9 tokens, and the context holds 8: the model sees the newest of them (--length)"
    ]
    assert written(engine, ["one"], new_tokens=0)[0] == "one\n"


def test_an_interrupted_line_still_ends(engine, monkeypatch):
    def interrupted(*_, **__):
        yield Piece(0, "begun", None, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "generate", interrupted)
    terminal = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        write_texts(engine, BYTES, Request(["A:"], 4, 16, GREEDY, 0, (), 1), terminal, print)
    assert terminal.getvalue() == "A:begun\n"


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ("one\n\ntwo  \n", "prompts.txt", ["one", "two  "]),
        ('{"prompt": "a\\nb"}\n{"prompt": ""}\n', "prompts.jsonl", ["a\nb", ""]),
        ("\n", "prompts.txt", "holds no prompt"),
        ("\ufeffa\x0cb\r\n\u2028\nc", "prompts.txt", ["a\x0cb", "c"]),
        ('\ufeff{"prompt": "a\u2028b\x85"}\r\n{"prompt": "c"}', "prompts.jsonl", ["a\u2028b\x85", "c"]),
        ("text", "prompts.jsonl", "line 1: is not JSON.*; each line must be an object with a text 'prompt'"),
        ('{"prompt": "a"}\n{"prompt": 1}', "prompts.jsonl", r"line 2: .*Expected `str`, got `int`"),
        ('{"text": "a"}', "prompts.jsonl", "missing required field `prompt`"),
        ('{"prompt": "\\ud800"}', "prompts.jsonl", "line 1: is not JSON"),
        (b"a\xff", "prompts.txt", "is not UTF-8: byte 0xff in line 1"),
        ("a".encode("utf-16"), "prompts.txt", "is UTF-16; save it as UTF-8"),
        (None, "prompts.txt", "cannot be read"),
    ],
)
def test_prompts_from_a_file(tmp_path, content, name, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(expected, list):
        assert read_prompts(str(path)) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            read_prompts(str(path))


def test_requests_that_cannot_work_are_one_line():
    with pytest.raises(ConfigError, match="--length=1: must be at least 2"):
        Request(["a"], 4, 1, GREEDY, 0, (), 1)
    with pytest.raises(ConfigError, match="with 2 prompts it must be below"):
        Request(["a", "b"], 4, 16, GREEDY, 2**32 - 1, (), 1)
