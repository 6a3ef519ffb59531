"""Every shell script is clean, and those of a worker do what launch/tpu.py relies on."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
FOLDERS = ("launch", "benchmarks", "configs", "constraints", "docs", "notebooks", "sparsejax", "tests")
SCRIPTS = sorted(
    path for folder in FOLDERS for pattern in ("*.sh", "*.sbatch") for path in (ROOT / folder).rglob(pattern)
)
HOST = socket.gethostname()


def program(path: Path, text: str) -> str:
    """A shell program; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def bash(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script; a variable that is given empty is unset."""
    merged: Mapping[str, str] = {**os.environ, **environment}
    kept = {name: value for name, value in merged.items() if value}
    return subprocess.run(["bash", *words], capture_output=True, text=True, timeout=60, env=kept)


def test_the_scripts_are_found() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"local.sh", "run_tpu.sh", "worker.sh", "slurm.sbatch"} <= names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_parses_it(path: Path) -> None:
    assert bash("-n", path).stderr == ""


def test_shellcheck_finds_nothing() -> None:
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None, "pip install -e '.[test]' brings it"
    done = subprocess.run([found, *SCRIPTS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture
def trainer(tmp_path: Path) -> str:
    """A ``sparsejax`` that says what it was given and ends with CODE."""
    return program(tmp_path / "bin/sparsejax", 'echo "$$: $* (${https_proxy:-no proxy})"\nexit "${CODE:-0}"')


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """A stale lock: a file that no process holds open."""
    (tmp_path / "lock").touch()
    return str(tmp_path / "lock")


def run_tpu(trainer: str, lock: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"SPARSEJAX": trainer, "LIBTPU_LOCK": lock, "JAX_COMPILATION_CACHE_DIR": "", **environment}
    return bash(LAUNCH / "run_tpu.sh", "--config=a", "--workdir=b", **settings)


@pytest.mark.parametrize("code", [0, 2, 3, 4, 75, 130])
def test_run_tpu_passes_the_exit_code_on(trainer: str, lock: str, code: int) -> None:
    assert run_tpu(trainer, lock, CODE=str(code)).returncode == code


def test_run_tpu_becomes_the_trainer(trainer: str, lock: str) -> None:
    """So that a signal for one is a signal for the other; and no proxy stands between the workers."""
    environment = {**os.environ, "SPARSEJAX": trainer, "LIBTPU_LOCK": lock, "https_proxy": "http://proxy"}
    command = ["bash", LAUNCH / "run_tpu.sh", "--config=a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert f"{process.pid}: train --config=a (no proxy)" in process.stdout.read()


def test_run_tpu_removes_a_stale_lock_and_says_so(trainer: str, lock: str) -> None:
    done = run_tpu(trainer, lock)
    assert (done.returncode, Path(lock).exists()) == (0, False)
    assert f"removed the stale lock {lock}" in done.stdout


def test_run_tpu_leaves_the_lock_of_a_living_process(trainer: str, lock: str) -> None:
    with Path(lock).open():
        done = run_tpu(trainer, lock)
    assert (done.returncode, done.stdout, Path(lock).exists()) == (1, "", True)
    assert done.stderr == f"run_tpu.sh: process {os.getpid()} holds the TPU ({lock}): stop it first\n"


def test_run_tpu_makes_the_compile_cache(trainer: str, lock: str, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    assert run_tpu(trainer, lock, JAX_COMPILATION_CACHE_DIR=str(cache)).returncode == 0
    assert cache.is_dir()


def test_run_tpu_refuses_a_compile_cache_that_cannot_be_written(trainer: str, lock: str) -> None:
    done = run_tpu(trainer, lock, JAX_COMPILATION_CACHE_DIR=f"{trainer}/cache")
    assert (done.returncode, done.stdout.count("train")) == (2, 0)
    assert done.stderr == f"run_tpu.sh: JAX_COMPILATION_CACHE_DIR={trainer}/cache: cannot be written\n"


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (1, 2)])
def test_run_tpu_asks_the_environment_s_python_for_a_bucket(trainer: str, lock: str, code: int, ended: int) -> None:
    text = f'cat >/dev/null\necho "Traceback"\necho "PermissionError: $2" >&2\nexit {code}'
    program(Path(trainer).with_name("python"), text)
    done = run_tpu(trainer, lock, JAX_COMPILATION_CACHE_DIR="gs://bucket/cache")
    assert done.returncode == ended
    assert ("gs://bucket/cache: cannot be written (PermissionError: gs://bucket/cache)" in done.stderr) == (code == 1)


def test_run_tpu_s_probe_writes_and_removes(trainer: str, lock: str, tmp_path: Path) -> None:
    """With a folder for the bucket."""
    code = "import pathlib, sys; from etils import epath; "
    code += f"epath.Path = lambda text: pathlib.Path('{tmp_path}', text.removeprefix('gs://')); exec(sys.stdin.read())"
    program(Path(trainer).with_name("python"), f'shift\nexec "{sys.executable}" -c "{code}" "$@"')
    done = run_tpu(trainer, lock, JAX_COMPILATION_CACHE_DIR="gs://bucket/cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.glob("bucket/**/*")] == ["cache"]


def test_run_tpu_without_sparsejax(lock: str) -> None:
    done = run_tpu("no-such-program", lock)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def worker(base: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"SPARSEJAX_BASE": str(base), "LIBTPU_LOCK": str(base / "lock"), "JAX_COMPILATION_CACHE_DIR": ""}
    return bash(LAUNCH / "worker.sh", *words, **settings, **environment)


def test_worker_runs_in_the_background_and_keeps_the_code(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    trainer = program(tmp_path / "sparsejax", f'echo "$*"\nread -r code <"{gate}"\nexit "$code"')
    assert worker(tmp_path, "state").stdout == f"sparsejax-worker {HOST} state=idle\n"

    started = worker(tmp_path, "start", "--config=a b", "--workdir=c", SPARSEJAX=trainer)
    assert started.stdout == f"sparsejax-worker {HOST} state=started\n"
    log = tmp_path / "run" / "log"
    with gate.open("w") as opened:  # opens when the trainer reads
        running = worker(tmp_path, "state").stdout
        again = worker(tmp_path, "start", SPARSEJAX=trainer).stdout
        opened.write("75\n")
    assert running == f"sparsejax-worker {HOST} state=running\ntrain --config=a b --workdir=c\n"
    assert again == f"sparsejax-worker {HOST} state=running\n"

    for _ in range(1000):
        state = worker(tmp_path, "state").stdout
        if "running" not in state:
            break
    assert state == f"sparsejax-worker {HOST} state=exited code=75\n"
    assert worker(tmp_path, "log", "1").stdout == f"==> {HOST} <==\n{log.read_text()}"


def test_worker_knows_a_run_that_vanished(tmp_path: Path) -> None:
    """The recorded process is gone, or is another one by now, as after a reboot."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    for process in (ended.pid, os.getpid()):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "pid").write_text(f"{process}\n")
        assert worker(tmp_path, "state").stdout == f"sparsejax-worker {HOST} state=lost\n"


def test_worker_installs_with_the_pins_of_its_python(tmp_path: Path) -> None:
    text = f'if [[ $1 == -c ]]; then echo 312; else echo "$@" >"{tmp_path}/pip"; fi'
    program(tmp_path / "venv/bin/python", text)
    assert worker(tmp_path, "setup", "tpu,gcs").stdout == f"sparsejax-worker {HOST} state=installed\n"
    call = (tmp_path / "pip").read_text()
    assert f"--constraint {ROOT}/constraints/py312.txt --editable {ROOT}[tpu,gcs]" in call


def test_worker_says_nothing_when_the_installation_fails(tmp_path: Path) -> None:
    program(tmp_path / "venv/bin/python", "[[ $1 == -c ]] && echo 312 || exit 1")
    done = worker(tmp_path, "setup", "tpu")
    assert (done.returncode, done.stdout) == (1, "")


def test_worker_refuses_an_unknown_verb(tmp_path: Path) -> None:
    done = worker(tmp_path, "dance")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with an ``srun`` that ends with CODE, and a record of what was called."""
    program(tmp_path / "srun", f'echo "srun $*" >>"{tmp_path}/calls"\nexit "$CODE"')
    program(tmp_path / "scontrol", f'echo "scontrol $*" >>"{tmp_path}/calls"')
    return tmp_path


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (75, 0, True), (75, 20, False), (76, 0, True), (2, 0, False), (143, 0, False)],
)
def test_slurm_requeues_what_was_saved(slurm: Path, code: int, restarts: int, requeued: bool) -> None:
    settings = {"PATH": f"{slurm}:{os.environ['PATH']}", "CODE": str(code), "SLURM_JOB_ID": "17"}
    done = bash(LAUNCH / "slurm.sbatch", "--config=a", "--workdir=b", SLURM_RESTART_COUNT=str(restarts), **settings)
    srun, *rest = (slurm / "calls").read_text().splitlines()
    assert srun.endswith("sparsejax train --distributed --config=a --workdir=b")
    assert (done.returncode, rest) == (code, ["scontrol requeue 17"] if requeued else [])


def test_slurm_warns_every_process_and_may_requeue() -> None:
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "\n#SBATCH --signal=TERM@300\n" in text and "\n#SBATCH --requeue\n" in text


def test_slurm_without_a_config(slurm: Path) -> None:
    done = bash(LAUNCH / "slurm.sbatch", PATH=f"{slurm}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr.count("\n"), (slurm / "calls").exists()) == (2, 1, False)
