"""One resource of the TPU API and its workers, as something that can be looked at, made, deleted and talked to."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from launch import gcloud, job, states
from launch.exit_codes import FAILED, LaunchError
from launch.gcloud import Request, Resource
from launch.shell import Result, Shell
from launch.states import Phase, Problem, Snapshot

_ANSWER = re.compile(r"^sparsejax-worker (\S+) state=(\w+)(?: code=(\d+))?$", re.MULTILINE)


class CloudError(LaunchError):
    """A call of ``gcloud`` that failed.

    Attributes:
      problem: its kind.
    """

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(f"{states.cause(text)} -- {problem.value}", FAILED)
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class WorkerState:
    """What ``worker.sh`` answered: running, exited, lost or idle, and started or installed after these verbs."""

    host: str
    state: str
    code: int | None


class Cloud:
    """The calls of one resource.

    Attributes:
      shell: runs them.
      resource: what they are about.
      request: what ``create`` asks for; None where nothing is to be made.
      workers: number of machines, as counted by the last ``look`` that found it ready; 0 before.
      mine: whether there is, or may be, something of this owner to delete.
    """

    def __init__(self, shell: Shell, resource: Resource, request: Request | None = None) -> None:
        self.shell = shell
        self.resource = resource
        self.request = request
        self.workers = 0
        self.mine = False

    def look(self) -> Snapshot | None:
        """The resource now, None if there is none. READY means that all its nodes are.

        Raises:
          CloudError: gcloud cannot tell.
          LaunchError: the resource is someone else's.
        """
        done = self.shell.run(gcloud.describe(self.resource))
        if done.code:
            if states.problem_of(done.err) is Problem.NOT_FOUND:
                return None
            raise CloudError(states.problem_of(done.err), done.err)
        try:
            snapshot = states.read_resource(self.resource.collection, done.out)
        except ValueError as error:
            raise CloudError(Problem.OTHER, f"ERROR: {error}") from error
        if snapshot.owner != self.resource.owner:
            whose = snapshot.owner or "someone who did not use these scripts"
            raise LaunchError(f"--name={self.resource.name}: belongs to {whose}; choose another name")
        self.mine = True
        return self._with_nodes(snapshot) if snapshot.phase is Phase.READY else snapshot

    def create(self) -> None:
        """Ask for it; raises ``CloudError``."""
        assert self.request is not None
        # Before the call, whose end a Ctrl-C may cut off.
        self.mine = True
        done = self.shell.run(gcloud.create(self.resource, self.request))
        if done.code:
            problem = states.problem_of(done.err)
            self.mine = problem is not Problem.EXISTS
            raise CloudError(problem, done.err)

    def delete(self) -> None:
        """Delete it, if it is there, whatever the terminal does meanwhile; raises ``CloudError``."""
        call = gcloud.delete(self.resource.collection, self.resource.name, self.resource.place)
        done = self.shell.run(call, shielded=True)
        if done.code and states.problem_of(done.err) is not Problem.NOT_FOUND:
            raise CloudError(states.problem_of(done.err), done.err)

    def upload(self, path: Path) -> None:
        """Copy a file into the home directory of every worker; raises ``CloudError``."""
        self._checked(gcloud.scp(self.resource, str(path), job.ARCHIVE))

    def ask(self, command: str, *, worker: str = "all") -> tuple[list[WorkerState], Result]:
        """What the workers answer to a call of ``worker.sh``; a worker that cannot be reached is missing."""
        done = self.shell.run(gcloud.ssh(self.resource, command, worker=worker))
        found = [
            WorkerState(host, state, int(code) if code else None) for host, state, code in _ANSWER.findall(done.out)
        ]
        return found, done

    def tell_all(self, command: str) -> None:
        """A call of ``worker.sh`` that all workers have to answer.

        Raises:
          CloudError: some did not.
        """
        found, done = self.ask(command)
        if len(found) < self.workers or not found:
            text = f"ERROR: {len(found)} of {self.workers} workers answered: {states.cause(done.err)}"
            raise CloudError(states.problem_of(done.err), text)

    def _with_nodes(self, snapshot: Snapshot) -> Snapshot:
        nodes = states.read_nodes(self._checked(gcloud.list_nodes(self.resource.place)).out)
        for name in snapshot.nodes:
            state = nodes[name][0] if name in nodes else "not there"
            if state != "READY":
                return dataclasses.replace(snapshot, phase=Phase.GONE, state=f"{snapshot.state}, node {name} {state}")
        self.workers = sum(nodes[name][1] for name in snapshot.nodes)
        return snapshot

    def _checked(self, call: list[str]) -> Result:
        done = self.shell.run(call)
        if done.code:
            raise CloudError(states.problem_of(done.err), done.err)
        return done


def delete_all_mine(shell: Shell, place: gcloud.Place, owner: str) -> int:
    """Delete everything in a zone that carries the owner's label; returns how many. Raises ``CloudError`` last."""
    found = all_mine(shell, place, owner)
    failed = None
    for collection, name, state in found:
        shell.say(f"deleting {name} ({state})")
        done = shell.run(gcloud.delete(collection, name, place), shielded=True)
        if done.code and states.problem_of(done.err) is not Problem.NOT_FOUND:
            failed = CloudError(states.problem_of(done.err), done.err)
    if failed is not None:
        raise failed
    return len(found)


def all_mine(shell: Shell, place: gcloud.Place, owner: str) -> list[tuple[str, str, str]]:
    """(collection, name, state) of everything in a zone that carries the owner's label; raises ``CloudError``."""
    texts = []
    for call in (gcloud.list_queue(place), gcloud.list_nodes(place)):
        done = shell.run(call)
        if done.code:
            raise CloudError(states.problem_of(done.err), done.err)
        texts.append(done.out)
    return states.owned(texts[0], texts[1], owner)
