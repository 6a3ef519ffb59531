"""Power cuts, failing disks, signals and bad batches at random moments: the next start goes on to the same numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsejax.topology.methods import METHODS
from tests.campaign.damage import files_below
from tests.campaign.oracle import PATIENCE, Campaign, Played
from tests.campaign.products import Products, train

pytestmark = pytest.mark.slow

MakeCampaign = Callable[[str, float], Campaign]
DISASTER = Path(__file__).with_name("disaster.py")
_ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture
def undisturbed(campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str]) -> str:
    """The numbers of the run that nothing happens to."""
    return numbers_of(products.run)


def ended(argv: list[str], *, kind: str, number: int, journal: Path) -> Played:
    """Train in a process with a disaster, to its end."""
    command = [sys.executable, str(DISASTER), kind, str(number), str(journal), *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, timeout=PATIENCE)
    return Played(argv, done.returncode, done.stdout, done.stderr)


def lose_unsynced(workdir: Path, journal: Path) -> list[str]:
    """Empty every file whose content was not synced after its last change; returns their names."""
    synced = {tuple(json.loads(line)[1:]) for line in journal.read_text().splitlines()}
    lost = []
    for path in files_below(workdir):
        found = path.stat()
        if (found.st_ino, found.st_size, found.st_mtime_ns) not in synced and found.st_size:
            path.write_bytes(b"")
            lost.append(str(path.relative_to(workdir)))
    return lost


def test_power_cuts(
    campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str], undisturbed: str
) -> None:
    trials = campaign("power cuts", 0.07)
    workdir, journal = products.place("cut"), products.folder / "journal"
    assert ended(train(workdir, **products.read), kind="never", number=0, journal=journal).code == 0
    syncs = len(journal.read_text().splitlines())
    for draw in trials.draws():
        workdir = products.place("cut")
        journal.write_text("")
        number = draw.randrange(1, syncs)
        played = ended(train(workdir, **products.read), kind="power", number=number, journal=journal)
        what = f"after sync {number} of {syncs}, lost {lose_unsynced(workdir, journal)}"
        if played.code != 9:
            trials.find(f"{what}: the process ended with {played.code} {played.printed}")
            continue
        again = trials.player.play(train(workdir, **products.read))
        # A run whose very first files were lost may have to begin again; it must not end in another place.
        same = again.code == 0 and numbers_of(workdir) == undisturbed
        trials.judge(what, again, "" if same else "other numbers")
    trials.closed()


def test_failing_disks(
    campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str], undisturbed: str
) -> None:
    """A write that fails ends the run in one line, and the next start goes on."""
    trials = campaign("failing disks", 0.06)
    for draw in trials.draws():
        workdir, journal = products.place("failing"), products.folder / "journal"
        argv = train(workdir, **products.read)
        if draw.random() < 0.6:
            limit = draw.randrange(1, 60_000)
            what, played = f"files of at most {limit} bytes", trials.player.play(argv, file_limit=limit)
        else:
            number = draw.randrange(1, 120)
            what, played = f"call {number} fails", ended(argv, kind="write", number=number, journal=journal)
        trials.judge(what, played)
        again = trials.player.play(argv)
        same = again.code == 0 and numbers_of(workdir) == undisturbed
        trials.judge(f"after {what}", again, "" if same else "other numbers")
    trials.closed()


COMMAND = [sys.executable, "-c", "import sys; from sparsejax.cli.main import main; sys.exit(main())"]
# 128 + the number of the signal; 75 where the run was saved; 0 where it had ended.
EXPECTED = {
    signal.SIGINT: {130, 0},
    signal.SIGTERM: {143, 75, 0},
    signal.SIGHUP: {143, 75, 0},
    signal.SIGKILL: {-9, 0},
}


def test_signals(
    campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str], undisturbed: str
) -> None:
    trials = campaign("signals", 0.05)
    start, argv = time.monotonic(), train(products.place("signalled"), **products.read)
    subprocess.run([*COMMAND, *argv], capture_output=True, env=_ENVIRONMENT, timeout=PATIENCE, check=True)
    whole = time.monotonic() - start
    for draw in trials.draws():
        workdir, number, moment = products.place("signalled"), draw.choice(sorted(EXPECTED)), draw.uniform(0.03, whole)
        argv = train(workdir, **products.read)
        process = subprocess.Popen(
            [*COMMAND, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT
        )
        time.sleep(moment)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        what = f"{signal.Signals(number).name} after {moment:.2f} of {whole:.2f} s"
        # The interpreter itself answers until the first line of the command has run.
        early = moment < 0.3 and process.returncode == -number
        if "Traceback" in err or (process.returncode not in EXPECTED[number] and not early):
            trials.find(f"{what}: {process.returncode} {out[-500:]} {err[-1500:]}")
        again = trials.player.play(argv)
        same = again.code == 0 and numbers_of(workdir) == undisturbed
        trials.judge(f"after {what}", again, "" if same else "other numbers")
    trials.closed()


def strict(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file, without words that JSON does not have."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_poisoned_batches(campaign: MakeCampaign, products: Products) -> None:
    """Losses that are not numbers: skipped, written as JSON, and never the end of a method's state."""
    trials = campaign("poisoned batches", 0.04)
    for draw in trials.draws():
        workdir, method, every = products.place("poisoned"), draw.choice(sorted(METHODS)), draw.choice((1, 2, 3, 5))
        dense = {"topology_density": 1} if method in ("dense", "galore") else {}
        changes = {**products.read, **dense, "topology_method": method, "topology_score_steps": 1, "train_steps": 8}
        argv = train(workdir, **changes, train_checkpoint_every=draw.choice((1, 3)))
        played = ended(argv, kind="poison", number=every, journal=products.folder / "journal")
        wrong = "" if played.code in (0, 4, 2) else f"exit code {played.code}"
        if played.code == 0:
            rows = strict(workdir / "metrics.jsonl")
            skipped = sum(row["skipped"] for row in rows if row["kind"] == "train" and "skipped" in row)
            losses = [row["loss_mean"] for row in rows if row["kind"] == "train"]
            evaluated = trials.player.play(["evaluate", f"--workdir={workdir}", "--tokens=128"])
            trials.judge(f"{method}, one batch of {every}", evaluated, "" if numbers_in(evaluated.out) else "no loss")
            if (None in losses) and not skipped:
                wrong = "a loss that is not a number, and no step skipped"
            if not (workdir / "result.json").exists():
                wrong = "no result"
        trials.judge(f"{method}, one batch of {every}", played, wrong)
    trials.closed()


def numbers_in(text: str) -> list[str]:
    """Losses that a command printed."""
    return re.findall(r"\d+\.\d{3,} nats", text)
