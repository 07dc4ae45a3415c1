"""Servers that throttle are asked again, late enough and for long enough; what is final fails at once."""

import errno
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.core.errors import InputError
from laion_etl.io.http_answers import busy_answer, retry_after_s
from laion_etl.io.remote_files import read_input
from laion_etl.io.request_limiter import RequestLimiter
from laion_etl.io.storage import s3_reader
from tests.fake_clock import FakeClock
from tests.test_inputs import response, server

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
CLOUDFRONT = (
    b"<H1>403 ERROR</H1><H2>The request could not be satisfied.</H2>Request blocked. We can't connect to the "
    b"server for this app or website at this time. There might be too much traffic or a configuration error."
)
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.mark.parametrize(
    ("status", "page", "is_busy"),
    [
        (429, b"", True),
        (503, b"", True),
        (503, SLOW_DOWN, True),
        (500, b"", True),
        (504, b"", True),
        (403, SLOW_DOWN, True),
        (403, CLOUDFRONT, True),
        (403, b"Too Many Requests", True),
        (403, b'{"message": "Rate exceeded"}', True),
        (403, DENIED, False),
        (403, b"", False),
        (403, b"<h1>Forbidden</h1>", False),
        (404, SLOW_DOWN, False),
        (400, b"", False),
        (401, b"", False),
    ],
)
def test_what_means_later_and_what_is_final(status: int, page: bytes, is_busy: bool) -> None:
    assert busy_answer(status, {}, page) is is_busy


def test_a_403_that_says_when_to_come_back_is_not_final() -> None:
    assert busy_answer(403, {"retry-after": "9"}, b"")
    assert not busy_answer(403, {"Retry-After": "9"}, DENIED)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("9" * 400, 999_999_999),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s({"Retry-After": value}, now=784_111_777) == seconds
    assert retry_after_s({}) == 0


def test_a_server_that_throttles_for_ten_minutes_is_waited_for() -> None:
    clock = FakeClock()

    def answer(_number: int, _head: str) -> bytes:
        answers = [
            response("503 Slow Down", SLOW_DOWN),
            response("403 Forbidden", CLOUDFRONT),
            response("429 Too Many Requests", b""),
        ]
        if clock.now < 1_000_600:
            return answers[len(clock.slept) % 3]
        return response("200 OK", b"at last")

    with server(answer) as url:
        assert read_input(f"{url}/x.wat.gz", 100, clock.policy(max_s=1_800)) == b"at last"
    assert clock.now < 1_000_700
    assert clock.slept == sorted(clock.slept)
    assert max(clock.slept) == 60


def test_a_server_that_throttles_may_refuse_connections_as_well() -> None:
    """It has answered, so its address is not wrong."""
    clock = FakeClock()

    def answer(number: int, _head: str) -> bytes:
        if number == 9:
            return response("200 OK", b"at last")
        return b"" if number % 2 else response("503 Slow Down", b"")

    with server(answer) as url:
        policy = replace(clock.policy(max_s=1_800), unreachable_s=2)
        assert read_input(f"{url}/x.wat.gz", 100, policy) == b"at last"
    assert len(clock.slept) == 9


def test_delays_are_random_by_half() -> None:
    shortest = FakeClock()
    policy = shortest.policy(max_s=30)
    lucky = type(policy)(30, 30, None, shortest.time, shortest.sleep, lambda: 0.0)
    with (
        server(lambda _, __: response("503 Slow Down", b"")) as url,
        pytest.raises(InputError, match=r"HTTP status 503, \d+ times within 30 s; .*try again later"),
    ):
        read_input(f"{url}/x.wat.gz", 100, lucky)
    assert shortest.slept[:4] == [0.05, 0.1, 0.2, 0.4]


def test_the_time_that_the_server_asks_for_is_kept() -> None:
    clock = FakeClock()

    def answer(number: int, _head: str) -> bytes:
        if number:
            return response("200 OK", b"at last")
        return response("503 Slow Down\r\nRetry-After: 240", b"")

    with server(answer) as url:
        assert read_input(f"{url}/x", 100, clock.policy(max_s=600)) == b"at last"
    assert 240 <= clock.slept[0] < 241


def test_a_server_that_asks_for_too_much_time_is_given_up_at_once() -> None:
    clock = FakeClock()
    with (
        server(lambda _, __: response("503 Slow Down\r\nRetry-After: 7200", b"")) as url,
        pytest.raises(InputError, match="asks to wait 7,200 s, once within 1,800 s"),
    ):
        read_input(f"{url}/x", 100, clock.policy(max_s=1_800))
    assert clock.slept == []


@pytest.mark.parametrize("page", [DENIED, b""])
def test_no_permission_is_final(page: bytes) -> None:
    clock = FakeClock()
    with (
        server(lambda _, __: response("403 Forbidden", page)) as url,
        pytest.raises(InputError, match="HTTP status 403"),
    ):
        read_input(f"{url}/x", 100, clock.policy(max_s=1_800))
    assert clock.slept == []


def test_each_byte_that_arrives_renews_the_patience() -> None:
    clock = FakeClock()
    data = bytes(range(200))

    def answer(number: int, head: str) -> bytes:
        if number % 4:
            return response("503 Slow Down", b"")
        start = int(head.lower().partition("range: bytes=")[2].partition("-")[0] or 0)
        part = data[start : start + 40]
        return response("206 Partial Content" if start else "200 OK", part, len(data) - start)

    with server(answer) as url:
        assert read_input(f"{url}/x", 1_000, clock.policy(max_s=3)) == data
    assert clock.now - 1_000_000 > 3


def test_requests_are_spaced_out(tmp_path: Path) -> None:
    clock = FakeClock()
    limiters = [clock.limiter(tmp_path / "data" / "lock", per_s=2) for _ in range(3)]
    times = []
    for number in range(6):
        limiters[number % 3].wait()
        times.append(clock.now - 1_000_000)
    assert times == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.01)
    clock.now += 60
    limiters[0].wait()
    assert len(clock.slept) == 5


def test_a_clock_that_was_set_back_costs_one_interval(tmp_path: Path) -> None:
    clock = FakeClock()
    limiter = clock.limiter(tmp_path / "lock", per_s=0.1)
    limiter.wait()
    clock.now -= 86_400
    limiter.wait()
    limiter.wait()
    assert clock.slept == [10, 10]


def test_no_limit_needs_no_file(tmp_path: Path) -> None:
    FakeClock().limiter(tmp_path / "lock", per_s=0).wait()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_made_leaves_the_limit_of_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").touch()
    clock = FakeClock()
    limiter = clock.limiter(tmp_path / "data" / "lock", per_s=2)
    limiter.wait()
    limiter.wait()
    assert clock.slept == [0.5]
    assert "for this process only" in caplog.text


@pytest.mark.parametrize("call", ["write", "utime"])
def test_a_full_disk_or_the_file_of_another_user_leaves_the_limit_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC if call == "write" else errno.EPERM, "refused")

    monkeypatch.setattr(f"laion_etl.io.request_limiter.os.{call}", refused)
    clock = FakeClock()
    limiter = clock.limiter(tmp_path / "lock", per_s=2)
    limiter.wait()
    limiter.wait()
    assert clock.slept == [0.5]
    assert "for this process only" in caplog.text


def hold(path: Path, started: "multiprocessing.synchronize.Event") -> None:
    def sleep(_: float) -> None:
        started.set()
        signal.pause()

    RequestLimiter(path, per_s=0.001, sleep=sleep).wait()


def test_a_process_killed_while_it_waits_holds_up_no_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    RequestLimiter(path, per_s=0.001, sleep=lambda _: None).wait()
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=hold, args=(path, started))
    process.start()
    assert started.wait(240)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    slept: list[float] = []
    RequestLimiter(path, per_s=1_000, clock=lambda: time.time() + 10, sleep=slept.append).wait()
    assert slept == []


def test_requests_and_their_repetitions_take_their_turn(tmp_path: Path) -> None:
    clock = FakeClock()
    asked: list[float] = []

    def answer(number: int, _head: str) -> bytes:
        asked.append(clock.now - 1_000_000)
        return response("200 OK", b"x") if number == 2 else response("503 Slow Down", b"")

    policy = clock.policy(600, clock.limiter(tmp_path / "lock", per_s=0.1))
    with server(answer) as url:
        read_input(f"{url}/x", 100, policy)
    assert asked == pytest.approx([0, 10, 20], abs=0.01)


def test_repeated_requests_to_s3_take_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 would repeat them at once, in front of all who wait for their turn."""
    clock = FakeClock()
    asked: list[float] = []

    def answer(number: int, _head: str) -> bytes:
        asked.append(clock.now - 1_000_000)
        return response('200 OK\r\nETag: "a"' if number == 2 else "503 Slow Down", b"x")

    with server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3_reader.cache_clear()
        read_input("s3://commoncrawl/x", 100, clock.policy(600, clock.limiter(tmp_path / "lock", per_s=0.1)))
    s3_reader.cache_clear()
    assert asked == pytest.approx([0, 10, 20], abs=0.01)
