from sparsejax.training.interrupts import INTERRUPTED, PREEMPTED, Interrupts
from sparsejax.training.shared_interrupts import SharedInterrupts


def test_a_process_alone_stops_at_once():
    own = Interrupts()
    shared = SharedInterrupts(own, processes=1)
    assert not shared.requested() and shared.exit_code == 0
    own.exit_code = PREEMPTED
    assert shared.requested() and shared.exit_code == PREEMPTED


def test_several_processes_stop_one_question_later_and_stay_stopped():
    # As one process of several sees it; the others of this "run" are the devices.
    own = Interrupts()
    shared = SharedInterrupts(own, processes=2)
    assert not shared.requested()
    own.exit_code = INTERRUPTED
    assert not shared.requested() and shared.exit_code == 0
    assert shared.requested() and shared.exit_code == INTERRUPTED
    own.exit_code = 0
    assert shared.requested() and shared.exit_code == INTERRUPTED
