"""Bad input is one line on stderr and exit code 2, before anything compiles."""

import subprocess
import sys
from importlib import import_module

import jax
import pytest

from sparsejax.cli.main import COMMANDS, main
from tests.training.tiny import write_text

QUICKSTART = "configs/quickstart.py"


# Commands import what they need when they run, and some modules decorate with jit when they are imported.
for needed in (*(f"cli.{command}" for command in COMMANDS), "training.loop"):
    import_module(f"sparsejax.{needed}")


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(jax, "jit", refuse)


@pytest.fixture
def base(tmp_path):
    """Flags of a tiny run that would work."""
    write_text(tmp_path / "text.txt")
    write_text(tmp_path / "validation.txt", seed=1, lines=20)
    return [
        "train",
        f"--config={QUICKSTART}",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.source=text",
        f"--config.data.path={tmp_path / 'text.txt'}",
        f"--config.data.validation_path={tmp_path / 'validation.txt'}",
        "--config.data.tokenizer=byte",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
    ]


def error_of(capsys, arguments):
    code = main(arguments)
    printed = capsys.readouterr().err
    assert code == 2, printed
    assert printed.count("\n") == 1 and printed.startswith("sparsejax: "), printed
    return printed


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--config.optim.learning_rate=1", ["optim.learning_rate", "unknown config key"]),
        ("--config.topology.densty=0.5", ["topology.densty", "did you mean topology.density?"]),
        ("--config.optimizer.lr=1", ["optimizer", "did you mean optim?"]),
        ("--config.train.steps=many", ["train.steps=many", "int"]),
        ("--config.train.steps=1.5", ["train.steps=1.5", "int"]),
        ("--config.optim.lr=fast", ["optim.lr=fast", "float"]),
        ("--config.topology.regrow_dropped=maybe", ["topology.regrow_dropped=maybe", "bool"]),
        ("--config.topology.density=0", ["topology.density=0", "(0, 1]"]),
        ("--config.topology.density=1.5", ["topology.density=1.5", "(0, 1]"]),
        ("--config.topology.block=(24, 24)", ["topology.block=(24, 24)", "24 does not divide", "16, 32"]),
        ("--config.topology.block=16", ["topology.block", "two integers"]),
        ("--config.topology.shards=3", ["topology.shards=3", "legal"]),
        ("--config.topology.method=magic", ["topology.method=magic", "smet"]),
        ("--config.topology.rules=nothing=0.5", ["topology.rules", "matches no weight", "attention.q"]),
        ("--config.topology.rate=0.006", ["topology.rate=0.006", "replaces none"]),
        ("--config.topology.rate=0.001", ["topology.rate_end=0.005", "topology.rate=0.001"]),
        ("--config.train.epochs=2", ["train.epochs=2", "exactly one"]),
        ("--config.data.path=", ["data.path is empty"]),
        ("--config.data.path=/nowhere/*.txt", ["data.path", "/nowhere/*.txt"]),
        ("--config.data.unique_tokens=1e12", ["data.unique_tokens=1000000000000", "has only"]),
        ("--verbose", ["--verbose", "unknown flag"]),
    ],
)
def test_one_line_names_the_field_the_value_and_the_fix(capsys, base, flag, parts):
    printed = error_of(capsys, [*base, flag])
    for part in parts:
        assert part in printed


def test_empty_data_file(capsys, base, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    assert "data.path" in error_of(capsys, [*base, f"--config.data.path={tmp_path / 'empty.txt'}"])


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("nowhere.py", "there is no such file"),
        ("configs/llama.py", "size is missing"),
        ("configs/llama.py:size=61m", "61m"),
        ("configs/llama.py:size=20m,densty=1", "densty"),
        ("configs/quickstart.py:density=0.5", "takes no arguments"),
        ("configs/base.py", "model.hidden: no value was given"),
        ("README.md", "is not a Python file"),
    ],
)
def test_bad_config_files(capsys, tmp_path, config, part):
    assert part in error_of(capsys, ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fly"], "no such command"),
        (["train", "--config=configs/quickstart.py"], "--workdir"),
        (["evaluate"], "--workdir"),
        (["evaluate", "--workdir=/nowhere/run"], "holds no run"),
        (["generate", "--workdir=/nowhere/run"], "holds no run"),
        (["generate", "--workdir=/nowhere/run", "--temperature=-1"], "--temperature=-1.0"),
        (["generate", "--workdir=/nowhere/run", "--tokens=x"], "--tokens"),
        (["generate", "--workdir=/nowhere/run", "--top-p=0"], "--top-p=0.0: must be in (0, 1]"),
        (["generate", "--workdir=/nowhere/run", "--stop="], "--stop=: must not be empty"),
        (["generate", "--workdir=/nowhere/run", "--prompts=/nowhere/prompts"], "--prompts=/nowhere/prompts: cannot"),
        (["generate", "--workdir=/nowhere/run", "--prompt=a", "--prompts=b"], "give one of them"),
        (["harness", "--workdir=/nowhere/run"], "--tasks"),
        (
            ["harness", "--workdir=/nowhere/run", "--tasks=a", "--batch-size=0"],
            "must be from 1 to 65536",
        ),
    ],
)
def test_bad_commands(capsys, arguments, part):
    assert part in error_of(capsys, arguments)


def test_help_and_version(capsys):
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    assert "usage: sparsejax" in capsys.readouterr().out


def test_a_reader_that_leaves_gets_no_traceback():
    """As ``sparsejax advise ... | head -1``."""
    code = "import sys; from sparsejax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    flags = ["advise", "--unique-tokens=1e9", "--flops=1e20"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
