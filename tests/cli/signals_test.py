"""A signal ends a command with its documented code and without a traceback, from the first import to the last line."""

import os
import signal
import subprocess
import sys

import pytest

# Sends the signal when the module MOMENT is imported; "end" is after the command, while the interpreter ends.
DRIVER = """
import atexit, os, signal, sys
def strike():
    os.kill(os.getpid(), signal.{sent})
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{moment}":
            strike()
        elif name == "sparsejax.files.failures" and "{moment}" == "end":
            atexit.register(strike)
sys.meta_path.insert(0, Finder())
{before}
from sparsejax.cli.main import main
sys.argv = ["sparsejax", *{arguments}]
sys.exit(main())
"""
ADVISE = ["advise", "--unique-tokens=1e9", "--flops=1e20"]
TRAIN = ["train", "--config=configs/quickstart.py", "--workdir=runs/none"]
# A run that is finished at once, whose summary is interrupted.
FINISHED = """
import types
from sparsejax.cli import summary
from sparsejax.training import loop
loop.train = lambda *arguments, **options: types.SimpleNamespace(exit_code={code})
summary.print_summary = lambda *arguments: strike() or print("drawn")
"""


def ended(sent, moment, arguments, before="", **options):
    code = DRIVER.format(sent=sent, moment=moment, arguments=arguments, before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, **options)


@pytest.mark.parametrize(
    ("sent", "moment", "arguments", "code"),
    [
        ("SIGTERM", "sparsejax.files.failures", ADVISE, 143),
        ("SIGINT", "sparsejax.files.text", ADVISE, 130),
        ("SIGHUP", "numpy", ADVISE, 143),
        ("SIGINT", "jax", TRAIN, 130),
        ("SIGTERM", "jaxlib.xla_client", TRAIN, 75),
        ("SIGTERM", "ml_collections", ["sweep", *TRAIN[1:]], 75),
    ],
)
def test_while_python_imports(sent, moment, arguments, code):
    done = ended(sent, moment, arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "sparsejax: stopped\n")


def test_while_the_interpreter_ends():
    done = ended("SIGTERM", "end", ["--version"])
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("sparsejax ")


def test_a_closed_terminal_is_ignored_under_nohup():
    done = ended("SIGHUP", "sparsejax.files.text", ["--version"], preexec_fn=_ignore_hangups)
    assert (done.returncode, done.stderr) == (0, "")


def _ignore_hangups():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_finished_run_stays_finished_while_its_summary_is_drawn(tmp_path):
    arguments = [*TRAIN[:2], f"--workdir={tmp_path / 'run'}"]
    done = ended("SIGTERM", "", arguments, FINISHED.format(code=0), env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_closed_streams_and_foreign_encodings_do_not_fail():
    closed = "import os; [os.close(number) for number in (0, 1, 2)]"
    code = f"{closed}; from sparsejax.cli.main import main; import sys; sys.argv[1:] = ['--version']; sys.exit(main())"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
    printed = (
        "import sys; from sparsejax.cli import main as m; m._run = lambda argv: print('\\u00e9\\udc80') or 0; m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", printed], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\xe9\\udc80\n", b"")
