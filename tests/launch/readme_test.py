"""launch/README.md shows what the commands really print; `python -m tests.launch.readme_test` writes it again."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launch.gcloud import CAPACITIES
from launch.tpu import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "launch" / "README.md"
BLOCK = re.compile(r"^```console\n\$ (.+?[^\\])\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(BLOCK.findall(README.read_text(encoding="utf-8")))


def printed(command: str) -> str:
    """What a command of the README prints."""
    words = shlex.split(command.replace("\\\n", " "))
    if words[0] == "launch/local.sh":
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
    python, dash_m, module, *arguments = words
    assert (python, dash_m) == ("python", "-m")
    output = io.StringIO()
    with contextlib.redirect_stdout(output), sparsejax_on_path():
        assert importlib.import_module(module).main(arguments) == 0, command
    return output.getvalue()


@contextlib.contextmanager
def sparsejax_on_path():
    """The command of this checkout, whether it is installed or not, and the checkout as the directory."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):
        program = Path(folder, "sparsejax")
        start = "import sys; from sparsejax.cli.main import main; sys.exit(main())"
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c "{start}" "$@"\n')
        program.chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def update() -> None:
    """Write the output of every command again."""
    text = README.read_text(encoding="utf-8")
    README.write_text(
        BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{printed(match[1])}```", text), encoding="utf-8"
    )


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: " ".join(command.split()[2:5]))
def test_example(command: str) -> None:
    advice = "the launch commands changed; if on purpose, run `python -m tests.launch.readme_test`"
    assert EXAMPLES[command] == printed(command), advice


def test_every_verb_and_every_term_has_an_example() -> None:
    commands = " ".join(EXAMPLES)
    assert [verb for verb in VERBS if f"launch.tpu {verb} " not in commands] == []
    assert [terms for terms in CAPACITIES if terms != "queued" and f"--capacity={terms}" not in commands] == []
    assert [kind for kind in ("manifest", "xpk") if f"launch.gke {kind} " not in commands] == []


if __name__ == "__main__":
    update()
