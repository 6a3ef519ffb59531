"""What the harness asks, against token sequences written out by hand."""

import dataclasses
import json

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.inference.scoring import Score, Scored
from sparsejax.interop import harness_requests
from sparsejax.interop.harness import Tasks, require_package, result_lines, results_text
from sparsejax.interop.harness_requests import HarnessModel, check_generation, rolling_windows
from tests.inference.tiny_engine import tiny

START = ByteTokenizer.start_id


@pytest.fixture(scope="module")
def model():
    return HarnessModel(tiny(vocab=257).engine(), ByteTokenizer(), length=16, batch_size=2)


@pytest.fixture
def asked(monkeypatch):
    """The rows that would be scored; the score of a row is minus its number of targets."""
    rows = []

    def fake(engine, given, *, length, batch_size):
        rows.extend(given)
        return [Score(-float(len(row.targets)), True) for row in given]

    monkeypatch.setattr(harness_requests, "score", fake)
    return rows


def test_a_continuation_is_scored_behind_start_and_context(model, asked):
    model.loglikelihood([("ab", "cd"), ("", "xy"), ("ab ", "c")])
    assert asked == [
        Scored([START, *b"abc"], list(b"cd")),
        Scored([START, *b"x"], list(b"xy")),
        Scored([START, *b"ab "], list(b" c")),  # the space belongs to the continuation
    ]


def test_what_does_not_fit_loses_its_oldest_tokens_but_not_the_start(model, asked):
    model.loglikelihood([("0123456789abcdefgh", "XYZ"), ("long", "0123456789abcdef")])
    assert asked == [
        Scored([START, *b"56789abcdefghXY"], list(b"XYZ")),
        Scored([START, *b"0123456789abcde"], list(b"0123456789abcdef")),
    ]
    with pytest.raises(ConfigError, match="--length=16: a continuation has 17 tokens"):
        model.loglikelihood([("", "x" * 17)])


def test_windows_of_the_documented_example():
    # The example in the documentation of lm_eval: ten tokens, length four.
    assert list(rolling_windows(range(10), START, 4)) == [
        Scored([START, 0, 1, 2], range(4)),
        Scored(range(3, 7), range(4, 8)),
        Scored(range(5, 9), range(8, 10)),
    ]
    assert list(rolling_windows([7], START, 4)) == [Scored([START], [7])] and not list(rolling_windows([], START, 4))


def test_rolling_sums_the_windows_of_each_text(model, asked):
    assert model.loglikelihood_rolling(["x" * 40, "", "ab"]) == [-40.0, 0, -2.0]
    assert [len(row.targets) for row in asked] == [16, 16, 8, 2]


def test_a_text_in_one_window_is_the_continuation_of_nothing(model):
    (rolled,) = model.loglikelihood_rolling(["twelve bytes"])
    (scored,) = model.loglikelihood([("", "twelve bytes")])
    np.testing.assert_allclose(rolled, scored.log_likelihood, rtol=1e-6)
    assert -200 < rolled < -5


def test_generation_stops_where_the_request_says(model):
    whole, cut, short, again = model.generate_until(
        [
            ("a context", {"until": [], "max_gen_toks": 8}),
            ("a context", {"until": ["\x00never"], "max_gen_toks": 8}),
            ("a context", {"until": None, "max_gen_toks": 3}),
            ("a context", {"max_gen_toks": 8, "do_sample": False, "temperature": 1.0}),
        ]
    )
    assert whole == cut == again and whole.startswith(short.rstrip("�"))
    mark = whole[2:4]
    (stopped,) = model.generate_until([("a context", {"until": mark, "max_gen_toks": 8})])
    assert stopped == whole[: whole.index(mark)]


def test_equal_requests_are_batched_and_sampling_differs_by_place(model, monkeypatch):
    calls = []

    def fake(engine, tokenizer, prompts, **arguments):
        calls.append((prompts, arguments))
        return iter(())

    monkeypatch.setattr(harness_requests, "generate", fake)
    sampled = {"do_sample": True, "top_p": 0.9, "max_gen_toks": 4}
    model.generate_until([("x", sampled), ("yyy", sampled), ("zz", {"max_gen_toks": 4}), ("w", sampled)])
    assert [(prompts, arguments["seed"]) for prompts, arguments in calls] == [
        (["yyy", "x"], 0),
        (["w"], 2),
        (["zz"], 0),
    ]
    how = [dataclasses.astuple(arguments["sampling"]) for _, arguments in calls]
    assert how == [(1.0, 0, 0.9), (1.0, 0, 0.9), (0.0, 0, 1.0)] and [a["rows"] for _, a in calls] == [2, 2, 1]


def test_arguments_that_are_not_understood_are_named(model):
    with pytest.raises(ConfigError, match="num_beams is not understood; there are do_sample"):
        model.generate_until([("x", {"num_beams": 4})])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top_p": 0.0}, r"top_p=0.0: must be in \(0, 1\]"),
        ({"top_p": float("nan")}, "top_p=nan"),
        ({"top_p": "0.9"}, "top_p=0.9: must be in"),
        ({"top_k": -1}, "top_k=-1: must be a whole number of at least 0; 0 means all"),
        ({"top_k": 2.5}, "top_k=2.5"),
        ({"temperature": -1.0}, "temperature=-1.0: must be a number of at least 0"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"temperature": [1]}, "temperature="),
        ({"max_gen_toks": 0}, "max_gen_toks=0: must be a whole number of at least 1"),
        ({"max_tokens": 10**12}, "max_tokens="),
        ({"max_new_tokens": "8"}, "max_new_tokens=8"),
        ({"do_sample": "yes"}, "do_sample=yes: must be true or false"),
        ({"until": 3}, "until=3: must be a text or a list of texts"),
        ({"until": ["a", None]}, "until="),
    ],
)
def test_arguments_that_cannot_be_are_one_line(arguments, said):
    with pytest.raises(ConfigError, match=f"generation_kwargs: {said}"):
        check_generation({"do_sample": True} | arguments)


def test_null_counts_as_not_given_and_zero_as_greedy():
    check_generation({"until": None, "max_gen_toks": None, "temperature": None, "do_sample": None, "top_k": None})
    check_generation({"temperature": 0, "max_tokens": 4.0, "top_p": 1})


class Merging(ByteTokenizer):
    """Bytes, with tokens for some longer texts, and no token for a space at the end of a text."""

    merges = ("whi", "wh", " t")
    vocab_size = 260

    def encode(self, text):
        ids, text = [], text.rstrip(" ")
        while text:
            found = next((number for number, merge in enumerate(self.merges) if text.startswith(merge)), None)
            ids += text[0].encode() if found is None else [257 + found]
            text = text[1 if found is None else len(self.merges[found]) :]
        return ids


@pytest.mark.parametrize(
    ("context", "continuation", "given", "scored"),
    [
        ("My w", "hi", [*b"My "], [257]),
        ("My w", "h", [*b"My "], [258]),
        ("My w", "hix", [*b"My "], [257, *b"x"]),
        ("My w", "e", [*b"My w"], [*b"e"]),
        ("My", " t", [*b"My"], [259]),
        ("My ", "t", [*b"My"], [259]),
        ("", "whi", [], [257]),
        ("x", "", [*b"x"], []),
    ],
)
def test_a_token_that_spans_the_seam_is_scored(asked, context, continuation, given, scored):
    model = HarnessModel(None, Merging(), length=16, batch_size=2)
    model.loglikelihood([(context, continuation)])
    assert asked == [Scored([START, *given, *scored][: 1 + len(given) + max(len(scored) - 1, 0)], scored)] or (
        not scored and asked[0].targets == []
    )


def test_a_continuation_without_tokens_is_one_line(asked):
    with pytest.raises(ConfigError, match=r"the continuation '  ' has no tokens"):
        HarnessModel(None, Merging(), length=16, batch_size=2).loglikelihood([("a", "  ")])


def test_results_are_lines_and_json():
    found = {"results": {"tiny": {"alias": "tiny", "acc,none": 0.5, "acc_stderr,none": 0.25, "ppl,none": 2.0}}}
    assert result_lines(found) == ["tiny acc 0.5000 +- 0.2500", "tiny ppl 2.0000"]
    text = results_text(found | {"config": {"function": result_lines}}, {"workdir": "runs/a"})
    assert '"workdir": "runs/a"' in text and '"acc,none": 0.5' in text
    text = results_text({"results": {"tiny": {"ppl,none": float("nan")}}}, {})
    assert json.loads(text, parse_constant=pytest.fail)["not_finite"] == {"results.tiny.ppl,none": "nan"}


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("sparsejax.interop.harness.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lm_eval: is not installed; pip install 'sparsejax\[lm_eval\]'"):
        require_package()
    assert Tasks(("a",), "", 0, None).names == ("a",)
