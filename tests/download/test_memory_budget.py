"""The memory budget that the bodies of a worker share."""

import pytest
import trio
import trio.testing

from laion_etl.download.memory_budget import BufferedBody, MemoryBudget


def body_of(budget: MemoryBudget, size: int) -> BufferedBody:
    body = BufferedBody(budget)
    body.add(bytes(size))
    return body


@pytest.mark.parametrize("sizes", [[], [1], [5_000], [5_000, 1, 2, 4_096, 3], [10] * 900, [1, 70_000, 4_095]])
def test_a_body_is_what_was_received_whatever_its_parts_are(sizes: list[int]) -> None:
    body, sent = BufferedBody(MemoryBudget(0)), b""
    for number, size in enumerate(sizes):
        body.add(bytes([number % 251]) * size)
        sent += bytes([number % 251]) * size
        assert body.size == len(sent)
        assert body.beginning(4_500) == sent[:4_500]
        assert body.beginning(1 << 20) == sent
    assert body.data() == body.data() == sent
    body.add(b"the end")
    assert body.data() == sent + b"the end"


def test_a_short_body_does_not_use_the_budget() -> None:
    budget = MemoryBudget(0)
    assert not body_of(budget, 100_000).needs_budget


def test_a_body_returns_all_it_took() -> None:
    async def main() -> None:
        budget = MemoryBudget(10_000_000)
        with body_of(budget, 1_000_000) as body:
            await body.acquire()
            assert not body.needs_budget
            assert budget.used == body.held >= 1_000_000 - 128_000
        assert budget.used == 0

    trio.run(main)


def test_bodies_beyond_the_budget_wait_in_turn() -> None:
    async def main() -> None:
        budget = MemoryBudget(1_000_000)
        ended: list[int] = []

        async def read(number: int) -> None:
            with body_of(budget, 400_000) as body:
                await body.acquire()
                assert budget.used <= 1_000_000
                await trio.sleep(1)
                ended.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(read, number)
                await trio.testing.wait_all_tasks_blocked()
        assert ended == list(range(5))
        assert budget.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_bodies_that_all_wait_for_each_other_still_end() -> None:
    max_used = 0

    async def main() -> None:
        nonlocal max_used
        budget = MemoryBudget(2_000_000)

        async def read() -> None:
            nonlocal max_used
            with BufferedBody(budget) as body:
                for _ in range(200):
                    body.add(bytes(50_000))
                    if body.needs_budget:
                        await body.acquire()
                    max_used = max(max_used, budget.used)
                    await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read)
        assert budget.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 2_000_000 < max_used < 2_000_000 + 11_000_000  # one body of 10 MB over the limit


def test_a_cancelled_body_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        budget = MemoryBudget(1_000_000)
        holder = body_of(budget, 400_000)
        await holder.acquire()
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await body_of(budget, 900_000).acquire()
        with trio.fail_after(1), body_of(budget, 200_000) as last:
            holder.release()
            await last.acquire()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
