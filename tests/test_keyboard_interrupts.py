import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from laion_etl.core import keyboard_interrupts
from laion_etl.core.keyboard_interrupts import on_sigint
from laion_etl.download.trio_runs import run_trio


@pytest.fixture
def handled() -> Iterator[None]:
    """Ctrl-C is handled as in a command."""
    before = signal.signal(signal.SIGINT, on_sigint)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("place", ["finalizer", "callback", "generator", "class", "import"])
def test_where_an_interrupt_would_be_lost_or_leave_a_lock_it_is_raised_a_moment_later(place: str) -> None:
    command = [sys.executable, "-m", "tests.interrupted_places", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-2:], done.stderr) == (["done", "raised"], "")


@pytest.mark.usefixtures("handled")
def test_more_interrupts_do_not_end_what_the_first_one_unwinds() -> None:
    done = []

    def work() -> None:
        try:
            try:
                press()
            finally:
                press()
                done.append("block")
        except KeyboardInterrupt as error:
            press()
            done.append("handler")
            raise RuntimeError("stopped") from error

    try:
        work()
    except RuntimeError:
        press()
        done.append("caller")
    assert done == ["block", "handler", "caller"]
    with pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.usefixtures("handled")
def test_an_interrupt_is_raised_while_errors_that_cause_each_other_are_handled() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    with pytest.raises(KeyboardInterrupt):
        try:
            raise one
        except ValueError:
            press()


@pytest.mark.usefixtures("handled")
def test_an_interrupt_ends_what_does_not_answer_while_the_first_one_unwinds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyboard_interrupts, "_LONGEST_S", 0)
    done = []

    def hang() -> None:
        try:
            press()
        finally:
            press()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        hang()
    assert done == []


@pytest.mark.usefixtures("handled")
def test_in_a_trio_run_an_interrupt_ends_no_task_but_the_first_one() -> None:
    done, wakeup = [], []

    async def child() -> None:
        press()
        done.append("child")

    async def trios_own() -> None:
        try:
            await trio.sleep_forever()
        finally:
            wakeup.append(signal.set_wakeup_fd(-1))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(trios_own)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        run_trio(main)
    assert raised.group_contains(KeyboardInterrupt)
    assert done == ["child"]
    assert wakeup == [-1]  # trio closes that socket before it takes it back
    assert signal.getsignal(signal.SIGINT) is on_sigint
    assert signal.set_wakeup_fd(-1) == -1
