"""What the TPU API answers, and the kinds of its errors."""

import json
from typing import Any

import pytest

from launch import states
from launch.gcloud import NODE, QUEUE
from launch.states import NODE_STATES, QUEUE_STATES, Phase, Problem

SPEC = {"nodeId": "a-0", "node": {"labels": {"sparsejax-owner": "ada"}}}


def queued(state: str, **details: Any) -> str:
    return json.dumps({"name": "q/a", "state": {"state": state, **details}, "tpu": {"nodeSpec": [SPEC]}})


@pytest.mark.parametrize("state", QUEUE_STATES)
def test_every_state_of_a_queued_resource(state: str) -> None:
    snapshot = states.read_resource(QUEUE, queued(state))
    assert (snapshot.phase, snapshot.state) == (QUEUE_STATES[state], state)
    assert (snapshot.owner, snapshot.nodes) == ("ada", ("a-0",))


def test_a_state_of_next_year_is_unknown() -> None:
    assert states.read_resource(QUEUE, queued("STATE_UNSPECIFIED")).phase is Phase.UNKNOWN


def test_a_failure_says_why() -> None:
    text = queued("FAILED", failedData={"error": {"code": 8, "message": "Quota 'X' exhausted."}})
    assert states.read_resource(QUEUE, text).state == "FAILED: Quota 'X' exhausted."


@pytest.mark.parametrize("state", ["READY", "CREATING", "PREEMPTED", "TERMINATED", "REPAIRING", "STOPPED", "UNKNOWN"])
def test_a_node_is_ready_coming_or_gone(state: str) -> None:
    snapshot = states.read_resource(NODE, json.dumps({"name": "p/nodes/a", "state": state}))
    assert snapshot.phase is (NODE_STATES[state] if state in NODE_STATES else Phase.GONE)
    assert (snapshot.owner, snapshot.nodes) == ("", ("a",))


@pytest.mark.parametrize("text", ["{}", "", '{"state": {"state": "ACTIVE"}}', '{"state": 1}'])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        states.read_resource(QUEUE, text)


def test_mine_is_what_carries_my_label_once() -> None:
    """A node of a queued resource goes with it."""
    other = {"nodeId": "b", "node": {"labels": {"sparsejax-owner": "grace"}}}
    queue = [
        json.loads(queued("SUSPENDED")),
        {"name": "q/b", "state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [other]}},
    ]
    label = {"labels": {"sparsejax-owner": "ada"}, "state": "READY"}
    nodes = [
        {"name": "n/a-0", "queuedResource": "q/a", **label},
        {"name": "n/c", **label},
        {"name": "n/d", "state": "READY"},
    ]
    mine = states.owned(json.dumps(queue), json.dumps(nodes), "ada")
    assert mine == [(QUEUE, "a", "SUSPENDED"), (NODE, "c", "READY")]
    assert states.owned("", "", "ada") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("NOT_FOUND: Resource 'projects/p/queuedResources/a' was not found", Problem.NOT_FOUND),
        ("ALREADY_EXISTS: Resource already exists", Problem.EXISTS),
        ("Quota limit 'TPUV6E' has been exceeded. Limit: 0 in region us-east5.", Problem.QUOTA),
        ("code 8 RESOURCE_EXHAUSTED: Quota 'TPUV4s' exhausted. Limit 20 in region r", Problem.QUOTA),
        ('There is no more capacity in the zone "z"; you can try in another zone', Problem.CAPACITY),
        ("Insufficient reserved capacity. Contact customer support", Problem.CAPACITY),
        ("PERMISSION_DENIED: Cloud TPU API has not been used in project p", Problem.DENIED),
        ("Please run:\n  $ gcloud auth login", Problem.DENIED),
        ('SSH Key is not present in the SSH agent. Please run "ssh-add k"', Problem.SSH_KEY),
        ("Internal error", Problem.OTHER),
    ],
)
def test_problems_are_known_by_their_words(text: str, problem: Problem) -> None:
    assert states.problem_of(text) is problem


def test_the_cause_is_the_error_or_the_last_line() -> None:
    assert states.cause("Using ssh batch size of 64.\nERROR: no key\nbye") == "ERROR: no key"
    assert states.cause("Using ssh batch size of 64.\nbash: no such file\n") == "bash: no such file"
    assert states.cause("") == "no output"
