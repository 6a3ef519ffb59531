import time

from etils import epath

from sparsejax.training.lost_peers import LOST_PEER
from sparsejax.training.watchdog import FIRST_STEP_GRACE, Watchdog, ends_process


def watchdog(directory, ends, seconds=100.0):
    return Watchdog(seconds, epath.Path(directory), name="process 1 of 2", end=lambda *end: ends.append(end))


def dumps(directory):
    return list(directory.glob("stacks-process-1-of-2-*.txt"))


def test_the_first_step_may_compile_for_an_hour(tmp_path, capsys):
    ends = []
    dog, now = watchdog(tmp_path, ends), time.monotonic()
    dog.check(now + FIRST_STEP_GRACE - 1)
    assert not dumps(tmp_path)
    dog.check(now + FIRST_STEP_GRACE + 1)
    assert len(dumps(tmp_path)) == 1 and not ends


def test_a_period_longer_than_the_grace_counts_from_the_start(tmp_path):
    dog, now = watchdog(tmp_path, [], seconds=2 * FIRST_STEP_GRACE), time.monotonic()
    dog.check(now + 2 * FIRST_STEP_GRACE - 1)
    assert not dumps(tmp_path)


def test_silence_dumps_stacks_once_and_then_ends_the_process(tmp_path, capsys):
    ends = []
    dog = watchdog(tmp_path, ends)
    dog.beat()
    now = time.monotonic()
    for quiet in (50, 101, 150, 199):
        dog.check(now + quiet)
    (path,) = dumps(tmp_path)
    text = path.read_text()
    assert "no step finished for 101 s" in text and "test_silence_dumps_stacks_once" in text
    assert text in capsys.readouterr().err
    assert not ends
    dog.check(now + 201)
    ((code, line),) = ends
    assert code == LOST_PEER and "process 1 of 2: no step finished for 201 s" in line and "\n" not in line


def test_a_step_starts_the_period_again(tmp_path, capsys):
    ends = []
    dog = watchdog(tmp_path, ends)
    dog.beat()
    dog.check(time.monotonic() + 101)
    dog.beat()
    dog.check(time.monotonic() + 99)
    assert len(dumps(tmp_path)) == 1 and not ends


def test_a_process_alone_is_never_ended(tmp_path, capsys):
    assert ends_process(1) is None and ends_process(2) is not None
    dog = Watchdog(1.0, epath.Path(tmp_path), name="process 1 of 2", end=ends_process(1))
    dog.beat()
    dog.check(time.monotonic() + 1e6)
    assert len(dumps(tmp_path)) == 1


def test_zero_watches_nothing(tmp_path):
    with watchdog(tmp_path, [], seconds=0) as dog:
        assert not dog._thread.is_alive()
