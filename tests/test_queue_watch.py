"""Progress lines of a queue that a task waits for, and when it counts as stalled."""

from laion_etl.airflow.queue_watch import QueueWatch
from laion_etl.core.consumers import QueueState

HOUR = 3_600.0


def test_depth_and_rate_are_logged() -> None:
    watch = QueueWatch(HOUR, began=0.0)
    state = QueueState(open=1_500, at_work=50, finished=0, parked=0)
    watch.see(state, 0.0)
    assert watch.line(state) == "1,500 batches to do, 50 of them at work; 0 finished, 0 parked"
    state = QueueState(open=1_400, at_work=50, finished=99, parked=1)
    watch.see(state, 600.0)
    assert watch.line(state) == (
        "1,400 batches to do, 50 of them at work; 99 finished, 1 parked; 600 an hour, about 2.3 h left"
    )


def test_the_rate_is_that_of_the_last_half_hour() -> None:
    watch = QueueWatch(HOUR, began=0.0)
    for minute in range(121):
        ended = 1_000 + minute if minute > 60 else 0
        watch.see(QueueState(5_000, 10, ended, 0), 60.0 * minute)
    assert watch.per_hour == 60.0


def test_a_queue_of_which_no_batch_ends_is_stalled_once() -> None:
    watch = QueueWatch(HOUR, began=0.0)
    waiting = QueueState(10, 0, 5, 0)
    watch.see(waiting, 10.0)
    assert not watch.has_stalled(HOUR - 1)
    watch.see(waiting, HOUR - 1)
    assert watch.has_stalled(HOUR)
    assert not watch.has_stalled(HOUR + 60)
    watch.see(QueueState(9, 0, 5, 1), HOUR + 120)  # also a parked batch is progress
    assert not watch.has_stalled(2 * HOUR)
    assert watch.silent_s(2 * HOUR) == HOUR - 120
    assert watch.has_stalled(2 * HOUR + 120)


def test_a_queue_that_cannot_be_read_is_stalled_too() -> None:
    watch = QueueWatch(HOUR, began=100.0)
    assert not watch.has_stalled(HOUR)
    assert watch.has_stalled(100.0 + HOUR)
