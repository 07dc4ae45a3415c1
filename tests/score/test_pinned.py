"""Threads that compute with one thread of torch's each, and leave the process's other threads alone."""

import threading

import numpy as np
import pytest
import torch

from laion_etl.score.pinned import PART, FromThreads, PinnedThreads, parts, pinned_threads


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_torch_uses_one_thread_in_them_and_as_many_as_before_in_others() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pool = PinnedThreads(2)
        inside = pool.submit(lambda: torch.tensor([torch.get_num_threads()]))
        assert inside.result().tolist() == [1]
        assert torch.get_num_threads() == 3
        assert threads_of_a_new_thread() == 3
        assert pool.submit(lambda: torch.tensor([torch.get_num_threads()])).result().tolist() == [1]
    finally:
        torch.set_num_threads(before)


def test_they_are_started_once_for_each_number() -> None:
    assert pinned_threads(2) is pinned_threads(2)
    assert pinned_threads(2) is not pinned_threads(1)


def test_an_error_is_raised_where_the_result_is_asked_for_and_the_threads_live_on() -> None:
    pool = pinned_threads(1)
    failing = pool.submit(lambda: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        FromThreads([failing]).get()
    assert pool.submit(lambda: torch.ones(1)).result().tolist() == [1]


def test_results_are_in_order_or_at_their_places() -> None:
    pool = pinned_threads(3)
    rows = np.arange(2 * PART + 1, dtype=np.float32)
    work = [pool.submit(lambda part=part: torch.from_numpy(part)) for part in parts(rows)]  # type: ignore[misc]
    assert FromThreads(work).get().tolist() == rows.tolist()
    assert FromThreads(work, np.argsort(-rows)).get().tolist() == rows[::-1].tolist()


def test_no_rows_are_one_empty_part() -> None:
    assert [len(part) for part in parts(np.empty((0, 4)))] == [0]
    assert [len(part) for part in parts(np.empty((PART + 1, 4)))] == [PART, 1]
