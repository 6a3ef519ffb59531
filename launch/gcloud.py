"""Every call of ``gcloud``, as the list of its arguments: pure functions, which print the same and run the same.

Two collections of the TPU API are used. A *queued resource* is a request that waits until there are chips and then owns
its nodes; an on-demand slice is a node (``tpu-vm``) made directly, now or not at all. Checked against the argument
parser of the Google Cloud CLI 528.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from launch.slices import GENERATIONS, Slice

Capacity = Literal["queued", "on-demand", "spot", "reserved"]
# Capacity -> flags of `queued-resources create`; on-demand is no queued resource.
QUEUE_FLAGS: dict[Capacity, list[str]] = {"queued": [], "spot": ["--spot"], "reserved": ["--reserved"]}
CAPACITIES: tuple[Capacity, ...] = ("queued", "on-demand", "spot", "reserved")

QUEUE, NODE = "queued-resources", "tpu-vm"
# Label of everything that these scripts make: who made it.
OWNER = "sparsejax-owner"

Connection = Literal["external", "internal-ip", "tunnel-through-iap"]
CONNECTIONS: tuple[Connection, ...] = ("external", "internal-ip", "tunnel-through-iap")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where resources live.

    Attributes:
      zone: such as ``us-east5-a``.
      project: empty for the one that ``gcloud config`` holds.
    """

    zone: str
    project: str

    def flags(self) -> list[str]:
        """The flags of every call."""
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]


@dataclasses.dataclass(frozen=True)
class Resource:
    """One thing of the TPU API, there or not.

    Attributes:
      collection: ``queued-resources`` or ``tpu-vm``.
      name: of it and of its node; several nodes are called ``<name>-0``, ``<name>-1``, ...
      place: where.
      owner: value of the label ``sparsejax-owner``.
      connection: how ssh reaches the workers.
    """

    collection: str
    name: str
    place: Place
    owner: str
    connection: Connection


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for under that name.

    Attributes:
      slice: what every node is.
      num_slices: how many nodes.
      capacity: on which terms.
      valid_until: how long it may wait in the queue, such as ``6h``; empty for ever.
      create_flags: further flags of the call, such as ``--network=...``.
    """

    slice: Slice
    num_slices: int
    capacity: Capacity
    valid_until: str
    create_flags: tuple[str, ...]


def collection_of(capacity: Capacity) -> str:
    """The collection that holds a request of these terms."""
    return NODE if capacity == "on-demand" else QUEUE


def create(resource: Resource, request: Request) -> list[str]:
    """Ask for it. A queued resource is only written into the queue; a node exists when the call returns."""
    runtime = GENERATIONS[request.slice.generation].runtime
    call = [*_call(resource.collection, "create"), resource.name, *resource.place.flags()]
    call.append(f"--accelerator-type={request.slice.accelerator_type}")
    if resource.collection == NODE:
        call.append(f"--version={runtime}")
    else:
        call.append(f"--runtime-version={runtime}")
        if request.num_slices > 1:
            call += [f"--node-count={request.num_slices}", f"--node-prefix={resource.name}"]
        else:
            call.append(f"--node-id={resource.name}")
        call += QUEUE_FLAGS[request.capacity]
        if request.valid_until:
            call.append(f"--valid-until-duration={request.valid_until}")
    return [*call, f"--labels={OWNER}={resource.owner}", *request.create_flags]


def describe(resource: Resource) -> list[str]:
    """State, labels and nodes of it as JSON."""
    return [*_call(resource.collection, "describe"), resource.name, *resource.place.flags(), "--format=json"]


def delete(collection: str, name: str, place: Place) -> list[str]:
    """Delete it, with the nodes it owns, without waiting for the end of it and without asking."""
    forced = ["--force"] if collection == QUEUE else []
    return [*_call(collection, "delete"), name, *place.flags(), *forced, "--async", "--quiet"]


def list_queue(place: Place) -> list[str]:
    """All queued resources of a zone as JSON."""
    return [*_call(QUEUE, "list"), *place.flags(), "--format=json(name,state,tpu)"]


def list_nodes(place: Place) -> list[str]:
    """All nodes of a zone as JSON."""
    return [*_call(NODE, "list"), *place.flags(), "--format=json(name,state,labels,networkEndpoints,queuedResource)"]


def ssh(resource: Resource, command: str, *, worker: str = "all") -> list[str]:
    """Run a command on every worker of every node, or on one worker of the first node."""
    call = [*_call(resource.collection, "ssh"), resource.name, *_where(resource, worker)]
    return [*call, f"--command={command}"]


def scp(resource: Resource, path: str, target: str) -> list[str]:
    """Copy a local file to every worker of every node."""
    return [*_call(resource.collection, "scp"), path, f"{resource.name}:{target}", *_where(resource, "all")]


def _call(collection: str, verb: str) -> list[str]:
    return ["gcloud", "compute", "tpus", collection, verb]


def _where(resource: Resource, worker: str) -> list[str]:
    node = [] if resource.collection == NODE else ["--node=all" if worker == "all" else "--node=0"]
    reach = [] if resource.connection == "external" else [f"--{resource.connection}"]
    return [*resource.place.flags(), *reach, *node, f"--worker={worker}"]
