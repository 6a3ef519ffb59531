import os
import signal

import pytest

from sparsejax.training.interrupts import INTERRUPTED, PREEMPTED, Ending, Interrupts


def test_nothing_asked_for():
    with Interrupts() as interrupts:
        assert not interrupts.requested()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, PREEMPTED), (signal.SIGHUP, PREEMPTED), (signal.SIGINT, INTERRUPTED)]
)
def test_a_signal_becomes_a_request(number, code):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        assert interrupts.requested() and interrupts.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once():
    with Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_finished_process_that_has_to_say_farewell_ignores_signals():
    ending = Ending()
    ending.finished(0, waits=True)
    assert ending._receive(signal.SIGTERM, None) is None  # else this process would have ended
