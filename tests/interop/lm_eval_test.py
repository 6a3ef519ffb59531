"""The evaluator of the package itself over tiny tasks of this folder; collected where the package is installed."""

import math
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.interop.harness import Tasks, results_text, run_tasks
from sparsejax.interop.harness_requests import HarnessModel
from tests.inference.tiny_engine import tiny

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "tests/interop/lm_eval_tasks"


@pytest.fixture
def model(monkeypatch):
    # Paths of data in task files are relative to where the evaluator runs.
    monkeypatch.chdir(ROOT)
    return HarnessModel(tiny(vocab=257).engine(), ByteTokenizer(), length=32, batch_size=4)


def test_the_evaluator_gets_what_the_requests_give(model):
    found = run_tasks(model, Tasks(("tiny_choice", "tiny_rolling", "tiny_until"), FOLDER, 0, None))
    results = found["results"]
    # Both choices of every question, by hand.
    questions = [("the sparse model reads a block of", "weights", "zzzzzzz"), ("drops the smallest", "ones", "qqqq")]
    questions += [("a block of weights and", "drops", "#####"), ("the model", "reads", "!!!!!")]
    pairs = [(context, " " + choice) for context, *choices in questions for choice in choices]
    scores = [score.log_likelihood for score in model.loglikelihood(pairs)]
    right = sum(good > bad for good, bad in zip(scores[::2], scores[1::2], strict=True))
    assert results["tiny_choice"]["acc,none"] == right / 4
    texts = ["the sparse model reads a block of weights and drops the smallest ones", "a block of weights"]
    nats = -sum(model.loglikelihood_rolling(texts)) / sum(len(text.encode()) for text in texts)
    assert results["tiny_rolling"]["bits_per_byte,none"] == pytest.approx(nats / math.log(2), rel=1e-6)
    assert 0 <= results["tiny_until"]["exact_match,none"] <= 1
    assert found["packages"]["lm_eval"] in results_text(found, {"workdir": "runs/a"})


CHOICE = """
task: mine
dataset_path: json
dataset_kwargs:
  data_files:
    test: tests/interop/lm_eval_tasks/questions.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("questions.jsonl", "absent.jsonl", "FileNotFoundError"),
        ("{{question}}", "{{quest.ion}}", "UndefinedError"),
        ("output_type: multiple_choice", "output_type: generate_until\ngeneration_kwargs: {top_p: 0}", "top_p=0: must"),
        (
            "output_type: multiple_choice",
            "output_type: generate_until\ngeneration_kwargs: {beams: 4}",
            "not understood",
        ),
    ],
)
def test_tasks_that_fail_are_one_line_before_the_model_is_asked(model, tmp_path, monkeypatch, old, new, said):
    (tmp_path / "mine.yaml").write_text(CHOICE.replace(old, new))
    monkeypatch.setattr("sparsejax.interop.harness_requests.score", pytest.fail)
    with pytest.raises(ConfigError, match=said) as caught:
        run_tasks(model, Tasks(("mine",), str(tmp_path), 0, None))
    assert "\n" not in str(caught.value)


def test_what_the_model_raises_is_not_told_of_the_task(model, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr("sparsejax.interop.harness_requests.score", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run_tasks(model, Tasks(("tiny_choice",), FOLDER, 0, None))


def test_an_unknown_task_is_one_line(model):
    with pytest.raises(ConfigError, match="--tasks=absent: no task absent; --include-path adds your own"):
        run_tasks(model, Tasks(("absent",), FOLDER, 0, None))
