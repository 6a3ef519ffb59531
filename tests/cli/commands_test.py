"""Commands on a tiny run, as a user calls them."""

import json
import re
from pathlib import Path

import pytest

from sparsejax.cli.main import main
from tests.training.tiny import write_text

TINY = [
    "--config=configs/quickstart.py",
    "--config.model.hidden=16",
    "--config.model.mlp=32",
    "--config.model.heads=2",
    "--config.model.kv_heads=2",
    "--config.model.head_dim=8",
    "--config.model.layers=2",
    "--config.topology.block=4,4",
    "--config.topology.density=0.5",
    "--config.topology.every=2",
    "--config.data.source=text",
    "--config.data.tokenizer=bpe",
    "--config.data.vocab_size=300",
    "--config.data.sequence_length=16",
    "--config.train.steps=4",
    "--config.train.batch_size=4",
    "--config.train.eval_tokens=128",
    "--config.optim.ema_decay=0.5",
    "--config.mesh.fsdp=1",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    write_text(directory / "text.txt")
    write_text(directory / "validation.txt", seed=1, lines=20)
    paths = {"path": "text.txt", "validation_path": "validation.txt", "cache_dir": "cache"}
    flags = [f"--config.data.{key}={directory / name}" for key, name in paths.items()]
    command = ["train", *TINY, *flags, f"--workdir={directory / 'run'}"]
    assert main(command) == 0
    return directory / "run", command


def test_train_ends_with_losses_bytes_sample_figure_and_commands(trained, capsys):
    workdir, command = trained
    assert main(command) == 0  # finished already: reports again
    printed = capsys.readouterr().out
    for part in ("unigram baseline", "bits/byte", "moments", "dense twin", "sample", "loss.png", "sparsejax generate"):
        assert part in printed, part
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate(trained, capsys):
    workdir, _ = trained
    assert main(["evaluate", f"--workdir={workdir}", "--tokens=128"]) == 0
    printed = capsys.readouterr().out
    loss = json.loads((workdir / "result.json").read_text())["validation_loss"]
    assert f"{loss:.5f} nats/token" in printed and "on 128 validation tokens" in printed


def test_generate_is_deterministic_and_starts_with_the_prompt(trained, capsys):
    workdir, _ = trained
    texts = []
    for _ in range(2):
        assert main(["generate", f"--workdir={workdir}", "--prompt=the sparse", "--tokens=8"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("the sparse")
    assert main(["generate", f"--workdir={workdir}", "--prompt=the sparse", "--tokens=8", "--seed=1"]) == 0
    assert capsys.readouterr().out != texts[0]


@pytest.mark.slow
def test_several_prompts_are_continued_together_as_each_alone(trained, capsys, tmp_path):
    workdir, _ = trained
    flags = ["generate", f"--workdir={workdir}", "--tokens=6", "--top-p=0.9", f"--out={tmp_path / 'texts.jsonl'}"]
    assert main([*flags, "--prompt=the sparse", "--prompt=a", "--seed=3"]) == 0
    together = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    first, second = capsys.readouterr().out.split("\n---\n")
    assert [first, second] == [f"the sparse{together[0]['text']}", f"a{together[1]['text']}\n"]
    (tmp_path / "prompts.txt").write_text("a\n")
    assert main([*flags, f"--prompts={tmp_path / 'prompts.txt'}", "--seed=4", "--overwrite"]) == 0
    assert json.loads((tmp_path / "texts.jsonl").read_text()) == together[1]


def test_the_example_of_the_decoding_step_runs(trained):
    text = Path("docs/INFERENCE.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'Path("runs/a")' in code
    exec(code.replace("runs/a", str(trained[0])), {})
