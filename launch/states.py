"""What the TPU API answers: states of queued resources and nodes, and the kinds of its errors."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

from launch.gcloud import NODE, OWNER, QUEUE


class Phase(enum.Enum):
    """What a state means for someone who wants to train."""

    WAITING = "not there yet"
    READY = "ready"
    GONE = "taken away, or being deleted: has to be made again"
    FAILED = "will never be there"
    UNKNOWN = "not in the table"


# All states of a queued resource in version 2 of the API. ACCEPTED is the older name of WAITING_FOR_RESOURCES.
QUEUE_STATES = {
    "CREATING": Phase.WAITING,
    "ACCEPTED": Phase.WAITING,
    "WAITING_FOR_RESOURCES": Phase.WAITING,
    "PROVISIONING": Phase.WAITING,
    "ACTIVE": Phase.READY,
    "SUSPENDING": Phase.GONE,
    "SUSPENDED": Phase.GONE,
    "DELETING": Phase.GONE,
    "FAILED": Phase.FAILED,
}
# A node has many ways not to be ready, and the name of a preempted one is not always PREEMPTED: any other is gone.
NODE_STATES = {"READY": Phase.READY, "CREATING": Phase.WAITING, "STARTING": Phase.WAITING}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A resource at one moment.

    Attributes:
      phase: what its state means.
      state: the state in the words of the API, with the reason where it gives one.
      owner: value of the label of these scripts; empty if it has none.
      nodes: names of its nodes.
    """

    phase: Phase
    state: str
    owner: str
    nodes: tuple[str, ...]


def read_resource(collection: str, text: str) -> Snapshot:
    """The snapshot in the JSON of ``describe``.

    Raises:
      ValueError: the text is no description of such a resource.
    """
    try:
        return _queued(json.loads(text)) if collection == QUEUE else _node(json.loads(text))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not the description of a {collection} resource: {error!r}") from error


def read_nodes(text: str) -> dict[str, tuple[str, int]]:
    """Name -> (state, number of workers) of every node in the JSON of ``list_nodes``."""
    found = {}
    for node in json.loads(text or "[]"):
        endpoints = node["networkEndpoints"] if "networkEndpoints" in node else []
        found[_basename(node["name"])] = (node["state"], len(endpoints))
    return found


def owned(queue_text: str, nodes_text: str, owner: str) -> list[tuple[str, str, str]]:
    """(collection, name, state) of all that carries the owner's label; nodes of a queued resource go with it."""
    found = []
    for entry in json.loads(queue_text or "[]"):
        snapshot = _queued(entry)
        if snapshot.owner == owner:
            found.append((QUEUE, _basename(entry["name"]), snapshot.state))
    for entry in json.loads(nodes_text or "[]"):
        if "queuedResource" not in entry and _owner(entry) == owner:
            found.append((NODE, _basename(entry["name"]), entry["state"]))
    return found


def _queued(entry: dict[str, Any]) -> Snapshot:
    state = entry["state"]["state"]
    specs = entry["tpu"]["nodeSpec"]
    names = tuple(spec["nodeId"] for spec in specs if "nodeId" in spec)
    phase = QUEUE_STATES[state] if state in QUEUE_STATES else Phase.UNKNOWN
    if phase is Phase.FAILED and "failedData" in entry["state"]:
        state = f"{state}: {entry['state']['failedData']['error']['message']}"
    return Snapshot(phase, state, _owner(specs[0]["node"]), names)


def _node(entry: dict[str, Any]) -> Snapshot:
    state = entry["state"]
    phase = NODE_STATES[state] if state in NODE_STATES else Phase.GONE
    return Snapshot(phase, state, _owner(entry), (_basename(entry["name"]),))


def _owner(node: dict[str, Any]) -> str:
    return str(node["labels"][OWNER]) if "labels" in node and OWNER in node["labels"] else ""


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


class Problem(enum.Enum):
    """Kinds of errors of ``gcloud``; the value says what to do about it."""

    NOT_FOUND = "there is no such resource"
    EXISTS = "the name is taken; choose another --name"
    QUOTA = (
        "the quota of this project is used up: free some ('status' and 'down-all' list and delete what is yours, and "
        "suspended requests count too), or ask for more at https://console.cloud.google.com/iam-admin/quotas"
    )
    CAPACITY = "no chips are free there now: --capacity=queued or --capacity=spot waits for some, or try another --zone"
    DENIED = "gcloud may not do this: see 'gcloud auth login', the project, and whether the TPU API is enabled in it"
    SSH_KEY = "several workers need the key in an agent: run 'ssh-add ~/.ssh/google_compute_engine', then again"
    OTHER = "gcloud failed"


# Looked for in this order in what gcloud writes, lower case.
_WORDS = (
    (Problem.NOT_FOUND, ("not_found", "was not found", "code=404")),
    (Problem.EXISTS, ("already_exists", "already exists")),
    (Problem.QUOTA, ("quota",)),
    (Problem.CAPACITY, ("no more capacity", "insufficient reserved capacity", "stockout", "resource_exhausted")),
    (Problem.DENIED, ("permission_denied", "permission denied on resource", "not have permission", "auth login")),
    (Problem.SSH_KEY, ("ssh-add", "ssh agent", "not in the agent")),
)


def problem_of(text: str) -> Problem:
    """The kind of an error by the words of it."""
    lower = text.lower()
    for problem, words in _WORDS:
        if any(word in lower for word in words):
            return problem
    return Problem.OTHER


def cause(text: str) -> str:
    """The line of an error output that says what happened: the first that claims to be an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors + lines[-1:] or ["no output"])[0]
