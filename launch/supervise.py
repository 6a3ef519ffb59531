"""A run from the first request to the last deletion: started again when preempted, and not when it failed."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from launch import job as jobs
from launch import states
from launch.cloud import Cloud, CloudError, WorkerState
from launch.exit_codes import FAILED, FINAL, FINISHED, INTERRUPTED, LOST_PEER, PREEMPTED, LaunchError
from launch.job import Job
from launch.shell import Shell
from launch.states import Phase, Snapshot

# Looks, in a row, after which a worker that answers nothing is given up, though its node says that it is ready.
_SILENT = 10
# Looks that the other workers have to end after the first, and a lost node to be seen as lost.
_SETTLE = 3
_LOG_LINES = 2000
_DELETIONS = 3


class Arrival(enum.Enum):
    """How a resource came to be ready, or did not."""

    NEW = "made by this command"
    FOUND = "was there before"
    GONE = "was taken away before it was used"


@dataclasses.dataclass(frozen=True)
class Policy:
    """What to do in which case.

    Attributes:
      retries: how often a preempted run is started again.
      keep: leave the resource when the run has ended.
      distributed: the workers form one run and have to find each other.
      logs: directory for the output of the workers.
    """

    retries: int
    keep: bool
    distributed: bool
    logs: Path


def check_fit(shell: Shell, command: Sequence[str]) -> int:
    """Run the fit check; returns 0 if it fits, else the exit code to stop with.

    Raises:
      LaunchError: the check itself failed.
    """
    code = shell.show(command)
    if code == FINISHED or code in FINAL:
        return code
    raise LaunchError(f"the fit check failed with exit code {code}; --skip-check goes on without it", FAILED)


def bring_up(cloud: Cloud) -> Arrival:
    """Ask for the resource unless it is there, and wait until it is ready.

    Raises:
      CloudError: it cannot be had.
      LaunchError: the name is someone else's.
    """
    snapshot = cloud.look()
    if snapshot is not None and snapshot.phase in (Phase.GONE, Phase.FAILED):
        cloud.shell.say(f"{cloud.resource.name} is {snapshot.state}: deleting it, to ask again")
        delete_and_wait(cloud)
        snapshot = None
    arrival = Arrival.NEW if snapshot is None else Arrival.FOUND
    if snapshot is None:
        cloud.create()
        snapshot = look_patiently(cloud)
    said = None
    while snapshot is not None and snapshot.phase in (Phase.WAITING, Phase.UNKNOWN):
        if snapshot.state != said:
            known = "" if snapshot.phase is Phase.WAITING else ", a state these scripts do not know"
            cloud.shell.say(f"{cloud.resource.name} is {snapshot.state}{known}: waiting")
            said = snapshot.state
        cloud.shell.pause()
        snapshot = look_patiently(cloud)
    if snapshot is None or snapshot.phase is Phase.GONE:
        return Arrival.GONE
    if snapshot.phase is Phase.FAILED:
        raise CloudError(states.problem_of(snapshot.state), f"ERROR: {cloud.resource.name} is {snapshot.state}")
    cloud.shell.say(f"{cloud.resource.name} is {snapshot.state}")
    return arrival


def delete_and_wait(cloud: Cloud) -> None:
    """Delete the resource, and wait until its name is free again; raises ``CloudError``."""
    cloud.delete()
    while look_patiently(cloud) is not None:
        cloud.shell.pause()


def look_patiently(cloud: Cloud) -> Snapshot | None:
    """``cloud.look`` that outlasts a laptop without network: what runs out there does not need this machine."""
    said = False
    while True:
        try:
            return cloud.look()
        except CloudError as error:
            if not said:
                cloud.shell.say(f"{error}; still trying")
                said = True
            cloud.shell.pause()


def install(cloud: Cloud, config: str, logs: Path) -> None:
    """Copy the checkout to all workers and install it there; raises ``CloudError``."""
    path = logs / jobs.ARCHIVE
    packed = cloud.shell.run(jobs.archive(config, path))
    if packed.code:
        raise LaunchError(f"tar failed: {states.cause(packed.err)}", FAILED)
    cloud.upload(path)
    cloud.tell_all(jobs.unpack_and_install())


def collect_logs(cloud: Cloud, logs: Path) -> None:
    """Write the end of every worker's log to a file of its own and show the last lines."""
    _, done = cloud.ask(jobs.worker("log", str(_LOG_LINES)))
    if done.out:
        path = logs / f"log-{1 + len(list(logs.glob('log-*.txt')))}.txt"
        path.write_text(done.out, encoding="utf-8")
        cloud.shell.say(f"the output of the workers is in {path}")


def combined(codes: Sequence[int]) -> int:
    """The exit code of a run from those of its workers: the cause, not the consequences.

    One worker's bad input makes the others fail in other ways, and so does one that is lost; a worker that saved and
    stopped on request says that all did. Workers that only say that they lost another one, where none failed by itself,
    are those of a run whose machine was taken away: it continues from its last checkpoint.
    """
    for code in (*FINAL, PREEMPTED, INTERRUPTED):
        if code in codes:
            return code
    if LOST_PEER in codes and FAILED not in codes:
        return PREEMPTED
    return FINISHED if codes and not any(codes) else FAILED


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait while the resource is being deleted."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Supervisor:
    """One resource and one run on it."""

    def __init__(self, cloud: Cloud, job: Job, policy: Policy) -> None:
        self._cloud = cloud
        self._shell = cloud.shell
        self._job = job
        self._policy = policy

    def up(self) -> int:
        """Have the resource ready; returns 0, or 75 if it was taken away too often."""
        with self._cleaned_up_on_error():
            code = self._repeat(lambda: PREEMPTED if bring_up(self._cloud) is Arrival.GONE else FINISHED)
        if code == PREEMPTED:
            self._delete()
        return code

    def run(self) -> int:
        """Train to the end, and delete the resource unless it is to be kept; returns the exit code of the run."""
        with self._cleaned_up_on_error():
            code = self._repeat(self._attempt)
            if code != PREEMPTED:
                collect_logs(self._cloud, self._policy.logs)
        self._shell.say(f"the run ended with exit code {code}" + (f": {FINAL[code]}" if code in FINAL else ""))
        deleted = self._delete() if code == PREEMPTED else self._keep_or_delete()
        return code if deleted else FAILED

    def _repeat(self, attempt: Callable[[], int]) -> int:
        """Call ``attempt`` until it returns anything but 75, at most once more than there are retries."""
        name, retries = self._cloud.resource.name, self._policy.retries
        code = attempt()
        for number in range(1, retries + 1):
            if code != PREEMPTED:
                return code
            self._shell.say(f"{name} was preempted: retry {number} of {retries} with the same run directory")
            delete_and_wait(self._cloud)
            code = attempt()
        if code == PREEMPTED:
            self._shell.say(f"{name} was preempted, and no retry is left; the same command continues the run")
        return code

    def _attempt(self) -> int:
        """From the request to the end of the trainer."""
        arrival = bring_up(self._cloud)
        if arrival is Arrival.GONE:
            return PREEMPTED
        try:
            if arrival is Arrival.FOUND and self._is_running():
                self._shell.say("the run is on: watching it")
            else:
                install(self._cloud, self._job.config, self._policy.logs)
                self._cloud.tell_all(jobs.start(self._job, distributed=self._policy.distributed))
        except CloudError:
            if self._is_gone():
                return PREEMPTED
            raise
        return self._watch()

    def _watch(self) -> int:
        """Follow the first worker until it ends or its node is lost."""
        silent, said = 0, ""
        while silent < _SILENT:
            if self._is_gone():
                return PREEMPTED
            found, done = self._cloud.ask(jobs.worker("state"), worker="0")
            if not found:
                silent += 1
            elif found[0].state == "exited":
                return self._verdict()
            elif found[0].state != "running":
                self._shell.say(f"worker {found[0].host} lost the run: its machine was started again")
                return PREEMPTED
            else:
                silent = 0
                line = done.out.rstrip().rpartition("\n")[2]
                if line != said and not line.startswith("sparsejax-worker"):
                    self._shell.say(line)
                    said = line
            self._shell.pause()
        self._shell.say(f"the first worker did not answer {_SILENT} times")
        return PREEMPTED

    def _verdict(self) -> int:
        """The exit code of a run whose first worker has ended."""
        for _ in range(_SETTLE):
            found, _ = self._cloud.ask(jobs.worker("state"))
            if found and all(worker.state != "running" for worker in found):
                break
            self._shell.pause()
        code = combined([worker.code for worker in found if worker.code is not None])
        if code == FAILED:
            self._shell.say(f"the workers ended with {_codes(found)}")
            # The others fail when one node is taken away, and may be seen to before the node is.
            for _ in range(_SETTLE):
                if self._is_gone():
                    return PREEMPTED
                self._shell.pause()
        return code

    def _is_running(self) -> bool:
        found, _ = self._cloud.ask(jobs.worker("state"), worker="0")
        return bool(found) and found[0].state == "running"

    def _is_gone(self) -> bool:
        snapshot = look_patiently(self._cloud)
        if snapshot is not None and snapshot.phase is Phase.READY:
            return False
        self._shell.say(f"{self._cloud.resource.name} is {'deleted' if snapshot is None else snapshot.state}")
        return True

    @contextlib.contextmanager
    def _cleaned_up_on_error(self) -> Iterator[None]:
        """Delete the resource when a command fails or is stopped: a suspended request would go on eating quota."""
        try:
            yield
        except (LaunchError, KeyboardInterrupt):
            if self._cloud.mine:
                self._keep_or_delete()
            raise

    def _keep_or_delete(self) -> bool:
        """Whether that went as it should."""
        if not self._policy.keep:
            return self._delete()
        self._shell.say(f"{self._cloud.resource.name} was kept: 'down' deletes it")
        return True

    def _delete(self) -> bool:
        """Whether the resource could be deleted, if it is there; says so."""
        name = self._cloud.resource.name
        with undisturbed():
            for _ in range(_DELETIONS):
                try:
                    self._cloud.delete()
                except CloudError as error:
                    self._shell.say(f"{name} could not be deleted: {error}")
                    self._shell.pause()
                else:
                    self._shell.say(f"{name} is being deleted")
                    return True
        self._shell.say(f"{name} IS STILL THERE AND COSTS MONEY: python -m launch.tpu down --name={name} ...")
        return False


def _codes(workers: Sequence[WorkerState]) -> str:
    return ", ".join(f"{worker.host}: {worker.code if worker.code is not None else worker.state}" for worker in workers)
