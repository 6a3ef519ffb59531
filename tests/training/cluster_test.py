import dataclasses

import jax
import pytest

from sparsejax.config import ConfigError
from sparsejax.training import cluster
from sparsejax.training.cluster import Cluster, Launch, joined

ALONE = Launch(False, "", None, None, 300, 100)
SECOND_OF_TWO = Launch(False, "127.0.0.1:9000", 2, 1, 300, 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_id": None}, "--process_id: missing; --coordinator, --num_processes, --process_id go together"),
        ({"coordinator": ""}, "--coordinator: missing"),
        ({"num_processes": None, "process_id": None}, "--num_processes, --process_id: missing"),
        ({"process_id": 2}, "--process_id=2: must be 0 to 1, as --num_processes=2"),
        ({"process_id": -1}, "--process_id=-1: must be 0 to 1"),
        ({"num_processes": 0}, "--num_processes=0: must be 1 to 1048576"),
        ({"coordinator": "somewhere"}, "--coordinator=somewhere: must be HOST:PORT"),
        ({"coordinator": "host:99999"}, "--coordinator=host:99999: must be HOST:PORT"),
        ({"distributed": True}, "--distributed: finds the processes by itself, --coordinator, --num_processes"),
        ({"init_timeout": 0}, "--init_timeout=0: must be 1 to 1000000 seconds"),
        ({"heartbeat_timeout": 0}, "--heartbeat_timeout=0: must be 1 to 1000000 seconds"),
    ],
)
def test_contradictions_are_one_line(changes, message):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(SECOND_OF_TWO, **changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_only_flags_make_a_process_join_others():
    assert SECOND_OF_TWO.joins and not ALONE.joins
    assert dataclasses.replace(ALONE, distributed=True).joins


def test_a_process_alone_decides_for_itself():
    with joined(ALONE) as alone:
        assert (alone.index, alone.count, alone.writes) == (0, 1, True)
        assert alone.together(lambda: 3) == 3
        assert alone.gather("mine") == ["mine"]
        assert alone.first("broken") == "broken" and alone.first("") == ""
        alone.check_equal({"--workdir": "a"})
        assert alone.line().startswith("process 0 of 1 on 1 host (") and "8 of 8 cpu devices" in alone.line()
        with pytest.raises(ConfigError, match="x=1"):
            alone.together(lambda: fail("x=1: no"))


def fail(message):
    raise ConfigError(message)


class Metadata:
    """A server of cluster descriptions that fails so many times."""

    def __init__(self, failures):
        self.failures, self.calls = failures, []

    def initialize(self, **options):
        self.calls.append(options)
        if len(self.calls) <= self.failures:
            raise RuntimeError("metadata: 503\nsecond line")


def join_with(monkeypatch, failures, launch):
    server = Metadata(failures)
    monkeypatch.setattr(jax.distributed, "initialize", server.initialize)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "_RETRY_SECONDS", 0.0)
    with joined(launch) as found:
        assert isinstance(found, Cluster)
    return server


def test_a_metadata_server_may_fail_once(monkeypatch, capsys):
    server = join_with(monkeypatch, 1, dataclasses.replace(ALONE, distributed=True, init_timeout=7))
    assert server.calls == [{"initialization_timeout": 7, "heartbeat_timeout_seconds": 100}] * 2
    assert "joining the other processes failed (metadata: 503); trying again" in capsys.readouterr().err


def test_explicit_flags_detect_nothing(monkeypatch):
    (call,) = join_with(monkeypatch, 0, SECOND_OF_TWO).calls
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == ("127.0.0.1:9000", 2, 1)
    assert call["cluster_detection_method"] == "deactivate"


@pytest.mark.parametrize(
    ("launch", "failures", "message"),
    [
        (dataclasses.replace(ALONE, distributed=True), 2, "--distributed: found no TPU pod, SLURM, Kubernetes"),
        (SECOND_OF_TWO, 1, "--coordinator=127.0.0.1:9000: cannot be joined (metadata: 503)"),
    ],
)
def test_what_cannot_be_joined_ends_the_process_with_one_line(monkeypatch, launch, failures, message):
    ends = []
    monkeypatch.setattr(cluster.lost_peers, "leave", lambda *end: ends.append(end))
    with pytest.raises(ConfigError):
        join_with(monkeypatch, failures, launch)
    ((code, line),) = ends
    assert code == 2 and line.startswith(f"sparsejax: {message}") and "\n" not in line
