"""From run directories to a report: the numbers are the trainer's, and nothing is lost on the way."""

import csv
import json
import random
import shutil

import jax
import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.models import functional
from sparsejax.training.evaluation import Settings, evaluate_runs, kind_of, named_texts, short_names
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.restore import restore_run
from tests.training.tiny import WORDS, quiet_console, tiny_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on short documents that keeps an average of its weights, a copy of it, and a text of three documents."""
    directory = tmp_path_factory.mktemp("evaluated")
    draw = random.Random(0)
    for name, lines in (("train", 200), ("held", 40)):
        texts = (" ".join(draw.choices(WORDS, k=draw.randint(1, 8))) for _ in range(lines))
        (directory / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    changes = {"topology_drop": "none", "topology_grow": "none", "topology_method": "static", "train_steps": 3}
    changes |= {"data_path": str(directory / "train.jsonl"), "data_validation_path": str(directory / "held.jsonl")}
    run = tiny_run(directory, **changes, data_source="jsonl", optim_ema_decay=0.5, model_layers=1)
    assert train(run, directory / "a", extend=False, console=quiet_console()).exit_code == 0
    shutil.copytree(directory / "a", directory / "b")
    with (directory / "books.jsonl").open("w") as file:
        for text in ("the sparse model reads a block of weights", "and drops", "the smallest ones ä"):
            file.write(json.dumps({"body": text}) + "\n")
    return directory


def test_the_loss_is_the_trainers_on_the_same_tokens(runs):
    (row,) = [row for row in read_rows(runs / "a" / "metrics.jsonl") if row["kind"] == "eval"]
    tokens = int(row["tokens"])
    for weights, wanted in (("raw", row["loss"]), ("ema", row["ema_loss"])):
        settings = Settings((), "text", True, tokens, "rows", weights)
        (text,) = evaluate_runs([runs / "a"], settings, print).runs[0].texts
        assert int(text.tokens.sum()) == tokens == 256
        assert text.loss.value == pytest.approx(wanted, rel=1e-6)
        if weights == "raw":
            assert text.bits_per_byte.value == pytest.approx(row["bits_per_byte"], rel=1e-6)
    assert row["loss"] != row["ema_loss"]


def test_a_report_of_two_runs_on_two_texts(runs, tmp_path, capsys):
    out = tmp_path / "report"
    flags = [f"--text=books={runs / 'books.jsonl'}", "--text-field=body", "--fit=published", f"--out={out}"]
    assert main(["evaluate", f"--workdir={runs / 'a'},{runs / 'b'}", "--tokens=256", *flags]) == 0
    printed = capsys.readouterr().out
    assert "paired differences" in printed and "Law sparse_repeated" in printed
    found = json.loads((out / "evaluation.json").read_text())
    assert [[text["text"] for text in run["texts"]] for run in found["runs"]] == [["validation", "books"]] * 2
    loss = json.loads((runs / "a" / "result.json").read_text())["validation_loss"]
    for run in found["runs"]:
        validation, books = run["texts"]
        assert validation["loss"]["value"] == pytest.approx(loss, rel=1e-6)
        low, high = validation["loss"]["interval"]
        assert low < loss < high and validation["loss_by_frequency"] and validation["calibration"]["error"] > 0
        assert books["documents"] == 3 and books["bytes"] == 41 + 9 + 20
    # A copy of a run differs from it by nothing, with certainty.
    assert [(one["text"], one["difference"]["value"], one["interval"]) for one in found["differences"]] == [
        ("validation", 0.0, [0.0, 0.0]),
        ("books", 0.0, [0.0, 0.0]),
    ]
    assert len(found["effective_dense_parameters"]) == 2
    report = (out / "report.md").read_text()
    for part in (
        "## validation",
        "## books",
        "## paired differences",
        "WARNING",
        "positions.png",
        "loss by occurrences",
    ):
        assert part in report, part
    with (out / "documents.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["text"] == "validation" and row["run"] == "a"]
    total = sum(float(row["nats"]) for row in rows) / sum(int(row["tokens"]) for row in rows)
    assert total == pytest.approx(loss, rel=1e-6)
    assert all(
        (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        for name in ("positions", "calibration", "frequencies")
    )
    assert main(["evaluate", f"--workdir={runs / 'a'}", f"--out={out}"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_document_alone_costs_what_the_model_says_of_it(runs):
    settings = Settings((("books", str(runs / "books.jsonl")),), "body", False, 0, "documents", "raw")
    (text,) = evaluate_runs([runs / "a"], settings, print).runs[0].texts
    assert text.frequencies == []
    trained = restore_run(runs / "a", print)
    ids = [*trained.tokenizer.encode("and drops"), trained.tokenizer.end_id]
    model = functional.merge(trained.recipe.graphdef, trained.state.params, trained.state.topology)
    log_p = jax.nn.log_softmax(jax.jit(model)(np.array([[trained.tokenizer.start_id, *ids[:-1]]])), axis=-1)
    assert text.tokens[1] == len(ids) == 10
    assert text.nll[1] == pytest.approx(
        -float(sum(log_p[0, place, token] for place, token in enumerate(ids))), rel=1e-5
    )


def test_flags_that_cannot_work_are_one_line(runs, capsys):
    workdir = f"--workdir={runs / 'a'}"
    for flags, message in (
        ([f"{workdir},{runs / 'a'}"], "must name different run directories"),
        ([workdir, "--no-validation"], "leaves nothing to evaluate; give --text"),
        ([workdir, "--tokens=-1"], "must be at least 0"),
        ([workdir, "--level=1"], "must be in [0.5, 1)"),
        ([workdir, "--fit=published", "--no-validation", "--text=x"], "needs the validation loss"),
        ([workdir, "--fit=published", "--context=documents"], "laws are of losses in rows"),
        ([workdir, "--text=nowhere.txt"], "--text=nowhere.txt: no file matches"),
        ([workdir, f"--text={runs / 'books.jsonl'}"], "--text-field=text: line 1 of"),
        ([f"--workdir={runs}"], "holds no run"),
    ):
        assert main(["evaluate", *flags]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_runs_are_named_by_what_tells_them_apart():
    assert short_names(["runs/a"]) == ["a"]
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["s/lr=1/seed0", "s/lr=2/seed0"]) == ["lr=1/seed0", "lr=2/seed0"]
    assert short_names(["a", "x/a"]) == ["a", "x/a"]


def test_texts_have_names_and_formats():
    found = named_texts(["books=a/*.jsonl.xz,b.jsonl", "gs://bucket/c4-00.parquet", "plain.txt"])
    assert found == (("books", "a/*.jsonl.xz,b.jsonl"), ("c4-00", "gs://bucket/c4-00.parquet"), ("plain", "plain.txt"))
    with pytest.raises(ConfigError, match=r"^--text=x/plain.txt: there is a text plain already; give it a name"):
        named_texts(["plain.txt", "x/plain.txt"])
    with pytest.raises(ConfigError, match="a text validation already"):
        named_texts(["validation=plain.txt"])
    kinds = {"a.txt": "text", "a.jsonl.gz": "jsonl", "my-json-notes": "jsonl", "c4.tfrecord-00000-of-00008": "tfrecord"}
    kinds |= {"x/c4-train.array_record-00001": "arrayrecord", "*.parquet,b.txt": "parquet", "json/a.txt.xz": "text"}
    assert {path: kind_of(path) for path in kinds} == kinds
