"""Train on Cloud TPUs from this machine: ``python -m launch.tpu <verb>``. Needs Python and ``gcloud``, nothing else.

``run`` does everything: it asks for the TPUs, installs this checkout on them, trains, starts again after a preemption,
and deletes them at the end. The other verbs are its parts. launch/README.md shows what each one calls.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from launch import gcloud, job, supervise
from launch.cloud import Cloud, all_mine, delete_all_mine
from launch.exit_codes import FINISHED, INTERRUPTED, LaunchError, answer
from launch.flags import Parser, slices, whole_number, words
from launch.gcloud import CAPACITIES, CONNECTIONS, NODE, QUEUE, Place, Request, Resource
from launch.rehearsal import Rehearsal
from launch.shell import Shell, settle_output
from launch.slices import GENERATIONS, parse_slice
from launch.states import Phase, Snapshot
from launch.supervise import Policy, Supervisor

# The API takes 40 characters; the nodes of several slices add a number.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,34}[a-z0-9])?")

VERBS = {
    "run": "ask for TPUs, install, train, start again after a preemption, delete at the end",
    "up": "check that the run fits, ask for TPUs and wait until they are ready",
    "setup": "copy this checkout to all workers and install it",
    "status": "the state of one resource and its workers, or of everything that is yours",
    "logs": "the output of the workers",
    "down": "delete one resource",
    "down-all": "delete everything in the zone that is yours",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do one verb; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settle_output()
    try:
        with _stopped_by_signals():
            return _do(arguments)
    except (LaunchError, OSError) as error:
        return answer(error)
    except KeyboardInterrupt:
        print("launch: stopped", file=sys.stderr)
        return INTERRUPTED


def _do(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<9} {text}" for name, text in VERBS.items()]
        print("usage: python -m launch.tpu <verb> [flags] [-- flags of the trainer]\n\nverbs:\n" + "\n".join(lines))
        print("\n'python -m launch.tpu <verb> --help' lists the flags of a verb")
        return FINISHED
    verb, *rest = arguments
    if verb not in VERBS:
        raise LaunchError(f"{verb}: no such verb; there are {', '.join(VERBS)}")
    split = rest.index("--") if "--" in rest else len(rest)
    flags = _parser(verb).parse_args(rest[:split])
    return _ACTIONS[verb](flags, rest[split + 1 :])


def _parser(verb: str) -> Parser:
    parser = Parser(f"launch.tpu {verb}", VERBS[verb])
    parser.add_argument("--zone", required=True, help="such as us-east5-a")
    parser.add_argument("--project", default="", help="instead of the one of 'gcloud config'")
    parser.add_argument("--owner", default=_user(), help="label of what is made; the name of this user")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    parser.add_argument("--poll", type=whole_number, default=30, help="seconds between two looks, 30")
    if verb in ("status", "down-all"):
        parser.add_argument("--name", default="", help="only this one") if verb == "status" else None
    else:
        parser.add_argument("--name", required=True, help="of the resource, and of what this run is called in logs/")
    if verb in ("run", "up", "setup", "status", "logs"):
        parser.add_argument("--connection", choices=CONNECTIONS, default="external", help="how ssh reaches the workers")
        parser.add_argument("--logs", type=Path, default=Path("runs/launch"), help="directory for what workers print")
    if verb == "logs":
        parser.add_argument("--lines", type=whole_number, default=50, help="how many")
        parser.add_argument("--worker", default="0", help="number of a worker of the first slice, or all")
        parser.add_argument("--follow", action="store_true", help="go on printing, for one worker")
    if verb == "setup":
        parser.add_argument("--config", default="", help="take this file of the checkout along")
    if verb in ("run", "up"):
        _add_request_flags(parser)
    return parser


def _add_request_flags(parser: Parser) -> None:
    parser.add_argument("--hardware", required=True, help="one slice, as 'sparsejax check' takes it: v5p:4x4x4")
    parser.add_argument("--num-slices", type=slices, default=1, help="slices, which mesh.replica spans")
    parser.add_argument("--capacity", choices=CAPACITIES, default="queued", help="on which terms; queued")
    parser.add_argument("--valid-until", default="", help="give up after this time in the queue, such as 6h")
    parser.add_argument(
        "--create-flags", type=words, default=(), help="more flags for the creating call: '--network=mine'"
    )
    parser.add_argument("--config", required=True, help="configs/<file>.py[:key=value,...]")
    parser.add_argument("--workdir", required=True, help="run directory, gs://bucket/run")
    parser.add_argument("--shared-workdir", action="store_true", help="the path of --workdir is mounted on all workers")
    parser.add_argument("--compile-cache", default="", help="directory of compiled programs; <workdir>/compile_cache")
    parser.add_argument("--retries", type=whole_number, default=10, help="how often to start again when preempted, 10")
    parser.add_argument("--keep", action="store_true", help="do not delete the TPUs at the end")
    parser.add_argument("--skip-check", action="store_true", help="do not check first that the run fits")
    parser.add_argument(
        "--check-flags", type=words, default=(), help="more flags for the check: '--vocab_size=32128 --search'"
    )


def _run(flags: argparse.Namespace, rest: list[str]) -> int:
    return _supervised(flags, rest, lambda supervisor: supervisor.run())


def _up(flags: argparse.Namespace, rest: list[str]) -> int:
    return _supervised(flags, rest, lambda supervisor: supervisor.up())


def _supervised(flags: argparse.Namespace, rest: list[str], act: Callable[[Supervisor], int]) -> int:
    request = _request(flags)
    many = request.num_slices > 1 or request.slice.many_hosts
    survives = flags.keep and flags.retries == 0
    job.check_workdir(flags.workdir, many_hosts=many, survives=survives, shared=flags.shared_workdir)
    todo = job.make_job(flags.config, flags.workdir, rest, flags.compile_cache)
    resource = _resource(flags, gcloud.collection_of(request.capacity))
    shell = _shell(flags, num_slices=request.num_slices, exists=False)
    if not flags.skip_check:
        code = supervise.check_fit(shell, job.fit_check(todo, request.slice, request.num_slices, flags.check_flags))
        if code != FINISHED:
            return code
    policy = Policy(flags.retries, flags.keep, many, _logs(flags))
    return act(Supervisor(Cloud(shell, resource, request), todo, policy))


def _setup(flags: argparse.Namespace, rest: list[str]) -> int:
    _none(rest)
    cloud, snapshot = _existing(flags)
    if snapshot.phase is not Phase.READY:
        raise LaunchError(f"--name={flags.name}: is {snapshot.state}; 'up' waits until it is ready")
    config = job.make_job(flags.config, "", [], "").config if flags.config else ""
    supervise.install(cloud, config, _logs(flags))
    cloud.shell.say(f"{flags.name} is installed")
    return FINISHED


def _status(flags: argparse.Namespace, rest: list[str]) -> int:
    _none(rest)
    if not flags.name:
        shell = _shell(flags, num_slices=1, exists=True)
        for collection, name, state in all_mine(shell, _place(flags), flags.owner):
            print(f"{name:<40} {collection:<17} {state}")
        return FINISHED
    cloud, snapshot = _existing(flags)
    cloud.shell.say(f"{flags.name} is {snapshot.state}")
    if snapshot.phase is Phase.READY:
        for worker in cloud.ask(job.worker("state"))[0]:
            code = "" if worker.code is None else f" with code {worker.code}"
            cloud.shell.say(f"{worker.host}: {worker.state}{code}")
    return FINISHED


def _show_logs(flags: argparse.Namespace, rest: list[str]) -> int:
    _none(rest)
    if flags.follow and flags.worker == "all":
        raise LaunchError("--follow: shows one worker; name it with --worker")
    cloud, _ = _existing(flags)
    command = job.worker("follow" if flags.follow else "log", str(flags.lines))
    return cloud.shell.show(gcloud.ssh(cloud.resource, command, worker=flags.worker))


def _down(flags: argparse.Namespace, rest: list[str]) -> int:
    _none(rest)
    cloud, _ = _existing(flags)
    cloud.delete()
    cloud.shell.say(f"{flags.name} is being deleted")
    return FINISHED


def _down_all(flags: argparse.Namespace, rest: list[str]) -> int:
    _none(rest)
    shell = _shell(flags, num_slices=1, exists=True)
    number = delete_all_mine(shell, _place(flags), flags.owner)
    shell.say(f"deleted {number} of {flags.owner} in {flags.zone}")
    return FINISHED


_ACTIONS = {
    "run": _run,
    "up": _up,
    "setup": _setup,
    "status": _status,
    "logs": _show_logs,
    "down": _down,
    "down-all": _down_all,
}


def _request(flags: argparse.Namespace) -> Request:
    wanted = parse_slice(flags.hardware)
    if not GENERATIONS[wanted.generation].runtime:
        raise LaunchError(f"--hardware={flags.hardware}: the TPU API does not have it, GKE does: python -m launch.gke")
    if flags.capacity == "on-demand":
        if flags.num_slices > 1:
            raise LaunchError(f"--num-slices={flags.num_slices}: only the queue gives several; --capacity=queued")
        if flags.valid_until:
            raise LaunchError(f"--valid-until={flags.valid_until}: on-demand TPUs wait in no queue; leave it out")
        if flags.connection == "tunnel-through-iap":
            raise LaunchError("--connection=tunnel-through-iap: only queued resources have it; --capacity=queued")
    return Request(wanted, flags.num_slices, flags.capacity, flags.valid_until, flags.create_flags)


def _resource(flags: argparse.Namespace, collection: str) -> Resource:
    if not _NAME.fullmatch(flags.name):
        raise LaunchError(
            f"--name={flags.name}: write at most 36 lower-case letters, digits and hyphens, a letter first"
        )
    connection: gcloud.Connection = flags.connection if "connection" in flags else "external"
    return Resource(collection, flags.name, _place(flags), flags.owner, connection)


def _existing(flags: argparse.Namespace) -> tuple[Cloud, Snapshot]:
    """The queued resource of that name, or the node, and its state.

    Raises:
      LaunchError: there is neither.
    """
    shell = _shell(flags, num_slices=1, exists=True)
    for collection in (QUEUE, NODE):
        cloud = Cloud(shell, _resource(flags, collection))
        snapshot = cloud.look()
        if snapshot is not None:
            return cloud, snapshot
    raise LaunchError(f"--name={flags.name}: there is no such resource in {flags.zone}")


def _shell(flags: argparse.Namespace, *, num_slices: int, exists: bool) -> Shell:
    if flags.dry_run:
        return Rehearsal(flags.name if "name" in flags else "", num_slices, flags.owner, exists=exists)
    return Shell(flags.poll)


def _logs(flags: argparse.Namespace) -> Path:
    folder: Path = flags.logs / flags.name
    if not flags.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _place(flags: argparse.Namespace) -> Place:
    return Place(flags.zone, flags.project)


def _none(rest: Sequence[str]) -> None:
    if rest:
        raise LaunchError(f"{rest[0]}: only 'run' and 'up' take flags for the trainer")


def _user() -> str:
    """This user's name, in the characters of a label; the number of one that has none."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    return re.sub(r"[^a-z0-9_-]", "-", name.lower())


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal stop a launch as Ctrl-C does: it cleans up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
