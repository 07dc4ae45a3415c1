"""The budget of bytes that the bodies of a worker share."""

import pytest
import trio
import trio.testing

from laion_etl.download.room import Body, Room


def body_of(room: Room, size: int) -> Body:
    body = Body(room)
    body.data += bytes(size)
    return body


def test_a_short_body_needs_none_of_the_budget() -> None:
    room = Room(0)
    assert not body_of(room, 100_000).is_crowded


def test_a_body_gives_back_all_it_took() -> None:
    async def main() -> None:
        room = Room(10_000_000)
        with body_of(room, 1_000_000) as body:
            await body.make_room()
            assert not body.is_crowded
            assert room.used == body.held >= 1_000_000 - 128_000
        assert room.used == 0

    trio.run(main)


def test_bodies_beyond_the_budget_wait_in_turn() -> None:
    async def main() -> None:
        room = Room(1_000_000)
        ended: list[int] = []

        async def read(number: int) -> None:
            with body_of(room, 400_000) as body:
                await body.make_room()
                assert room.used <= 1_000_000
                await trio.sleep(1)
                ended.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(read, number)
                await trio.testing.wait_all_tasks_blocked()
        assert ended == list(range(5))
        assert room.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_bodies_that_all_wait_for_each_other_still_end() -> None:
    most = 0

    async def main() -> None:
        nonlocal most
        room = Room(2_000_000)

        async def read() -> None:
            nonlocal most
            with Body(room) as body:
                for _ in range(200):
                    body.data += bytes(50_000)
                    if body.is_crowded:
                        await body.make_room()
                    most = max(most, room.used)
                    await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read)
        assert room.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 2_000_000 < most < 2_000_000 + 11_000_000  # one body of 10 MB over the limit


def test_one_that_gives_up_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        room = Room(1_000_000)
        holder = body_of(room, 400_000)
        await holder.make_room()
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await body_of(room, 900_000).make_room()
        with trio.fail_after(1), body_of(room, 200_000) as last:
            holder.release()
            await last.make_room()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
