"""Every call of gcloud, as the list of its arguments."""

import dataclasses

import pytest

from launch import gcloud
from launch.gcloud import CAPACITIES, Capacity, Place, Request, Resource
from launch.slices import parse_slice

PLACE = Place("z1", "lab")
REQUEST = Request(parse_slice("v5e:4x4"), 1, "queued", "", ())


def resource(capacity: Capacity = "queued", connection: gcloud.Connection = "external") -> Resource:
    return Resource(gcloud.collection_of(capacity), "run", PLACE, "ada", connection)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_create(capacity: Capacity) -> None:
    call = gcloud.create(resource(capacity), dataclasses.replace(REQUEST, capacity=capacity))
    common = ["run", "--zone=z1", "--project=lab", "--accelerator-type=v5litepod-16"]
    runtime, label = "v2-alpha-tpuv5-lite", "--labels=sparsejax-owner=ada"
    if capacity == "on-demand":
        assert call == ["gcloud", "compute", "tpus", "tpu-vm", "create", *common, f"--version={runtime}", label]
        return
    terms = {"queued": [], "spot": ["--spot"], "reserved": ["--reserved"]}[capacity]
    asked = [f"--runtime-version={runtime}", "--node-id=run", *terms, label]
    assert call == ["gcloud", "compute", "tpus", "queued-resources", "create", *common, *asked]


def test_create_several_slices_that_wait_six_hours() -> None:
    call = gcloud.create(
        resource(), dataclasses.replace(REQUEST, num_slices=3, valid_until="6h", create_flags=("--x",))
    )
    assert call[-6:] == [
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--node-count=3",
        "--node-prefix=run",
        "--valid-until-duration=6h",
        "--labels=sparsejax-owner=ada",
        "--x",
    ]
    assert not any(flag.startswith("--node-id") for flag in call)


@pytest.mark.parametrize(
    ("capacity", "connection", "worker", "flags"),
    [
        ("queued", "external", "all", ["--node=all", "--worker=all"]),
        ("spot", "internal-ip", "all", ["--internal-ip", "--node=all", "--worker=all"]),
        ("queued", "tunnel-through-iap", "0", ["--tunnel-through-iap", "--node=0", "--worker=0"]),
        ("on-demand", "external", "3", ["--worker=3"]),
    ],
)
def test_ssh(capacity: Capacity, connection: gcloud.Connection, worker: str, flags: list[str]) -> None:
    call = gcloud.ssh(resource(capacity, connection), "ls -l", worker=worker)
    collection = "tpu-vm" if capacity == "on-demand" else "queued-resources"
    start = ["gcloud", "compute", "tpus", collection, "ssh", "run", "--zone=z1", "--project=lab"]
    assert call == [*start, *flags, "--command=ls -l"]


def test_the_other_calls() -> None:
    calls = [
        gcloud.describe(resource()),
        gcloud.delete(gcloud.QUEUE, "run", PLACE),
        gcloud.delete(gcloud.NODE, "run", PLACE),
        gcloud.list_queue(PLACE),
        gcloud.list_nodes(PLACE),
        gcloud.scp(resource(), "a.tgz", "b.tgz"),
    ]
    where = "--zone=z1 --project=lab"
    assert [" ".join(call).removeprefix("gcloud compute tpus ") for call in calls] == [
        f"queued-resources describe run {where} --format=json",
        f"queued-resources delete run {where} --force --async --quiet",
        f"tpu-vm delete run {where} --async --quiet",
        f"queued-resources list {where} --format=json(name,state,tpu)",
        f"tpu-vm list {where} --format=json(name,state,labels,networkEndpoints,queuedResource)",
        f"queued-resources scp a.tgz run:b.tgz {where} --node=all --worker=all",
    ]
