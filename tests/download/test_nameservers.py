"""The stub resolver against real nameservers on loopback, over UDP and TCP."""

import json
import shutil
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download import nameservers
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.nameservers import StubSource, parse_servers, system_servers
from laion_etl.download.resolver import Addresses, NoSuchName, Resolver, ResolverTrouble
from laion_etl.download.ssrf import AddressPolicy
from tests.download.search_list import DEAD

LIMIT_S = 60.0  # for a hang

Answer = dns.message.Message | bytes | None
Answerer = Callable[[dns.message.Message, bool], Answer | list[Answer]]


@contextmanager
def nameserver(answer: Answerer) -> Iterator[tuple[str, int]]:
    """Answers each question by `answer(question, over_tcp)`, with one message or several; None is silence."""

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            for wire in _wires(answer(dns.message.from_wire(data), False)):
                sock.sendto(wire, self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            (length,) = struct.unpack(">H", self.rfile.read(2))
            for wire in _wires(answer(dns.message.from_wire(self.rfile.read(length)), True)):
                self.wfile.write(struct.pack(">H", len(wire)) + wire)

    with ExitStack() as stack:
        udp, tcp = _on_one_port(Udp, Tcp)
        for server in (udp, tcp):
            stack.enter_context(server)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
        yield "127.0.0.1", udp.server_address[1]


def _wires(found: Answer | list[Answer]) -> list[bytes]:
    answers = found if isinstance(found, list) else [found]
    return [one if isinstance(one, bytes) else one.to_wire() for one in answers if one is not None]


def _on_one_port(udp: Any, tcp: Any) -> tuple[socketserver.UDPServer, socketserver.TCPServer]:
    """A port that is free for UDP may be taken for TCP: then try another one."""
    for _ in range(20):
        over_tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), tcp)
        try:
            return socketserver.ThreadingUDPServer(over_tcp.server_address, udp), over_tcp
        except OSError:
            over_tcp.server_close()
    raise OSError("no port is free for UDP and TCP")


def reply(question: dns.message.Message, *records: tuple[str, int, str, str]) -> dns.message.Message:
    found = dns.message.make_response(question)
    for name, ttl, kind, value in records:
        found.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, value))
    return found


def kind(question: dns.message.Message) -> str:
    return question.question[0].rdtype.name


def normal(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
    name = str(question.question[0].name)
    if name == "gone.example.":
        found = dns.message.make_response(question)
        found.set_rcode(dns.rcode.NXDOMAIN)
        return found
    if name == "long.example." and not over_tcp:
        found = dns.message.make_response(question)
        found.flags |= dns.flags.TC
        return found
    if kind(question) == "AAAA":
        return reply(question, (name, 60, "AAAA", "2606:4700::1"))
    return reply(question, (name, 90, "CNAME", "real.example."), ("real.example.", 120, "A", "8.8.8.8"))


def servfail(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
    found = dns.message.make_response(question)
    found.set_rcode(dns.rcode.SERVFAIL)
    return found


def look_up(host: str, *answerers: Answerer, ipv6: bool = False) -> Addresses | type[Exception]:
    async def main(servers: list[tuple[str, int]]) -> Any:
        try:
            return await StubSource(servers, ipv6=ipv6).look_up(host)
        except (NoSuchName, ResolverTrouble) as error:
            return type(error)

    with ExitStack() as stack:
        servers = [stack.enter_context(nameserver(answerer)) for answerer in answerers]
        found: Addresses | type[Exception] = trio.run(main, servers)
        return found


def test_addresses_are_at_the_end_of_the_chain_and_valid_for_its_shortest_ttl() -> None:
    assert look_up("a.example", normal) == Addresses(("8.8.8.8",), 90.0)


def test_both_families_are_asked_where_there_is_ipv6() -> None:
    found = look_up("a.example", normal, ipv6=True)
    assert isinstance(found, Addresses)
    assert set(found.literals) == {"8.8.8.8", "2606:4700::1"}


def test_a_name_that_does_not_exist_is_an_answer() -> None:
    assert look_up("gone.example", normal) is NoSuchName
    assert look_up("a..example", normal) is NoSuchName
    assert look_up("x" * 70 + ".example", normal) is NoSuchName


def test_an_answer_that_does_not_fit_is_fetched_over_tcp() -> None:
    assert look_up("long.example", normal) == Addresses(("8.8.8.8",), 90.0)


def test_a_failing_or_silent_server_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "_TRY_S", 0.2)
    assert look_up("a.example", servfail, normal) == Addresses(("8.8.8.8",), 90.0)
    assert look_up("a.example", lambda *_: None, normal) == Addresses(("8.8.8.8",), 90.0)
    assert look_up("a.example", servfail) is ResolverTrouble


def test_a_name_that_moves_to_a_private_address_is_refused_the_second_time() -> None:
    """DNS rebinding: only checked addresses are connected to, and every answer is checked."""
    addresses = iter(["8.8.8.8", "127.0.0.1"])

    def rebinding(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        return reply(question, (str(question.question[0].name), 0, "A", next(addresses)))

    async def main(server: tuple[str, int]) -> list[Any]:
        resolver = Resolver([StubSource([server], ipv6=False)], AddressPolicy(), 3.0)
        found: list[Any] = [await resolver.resolve("rebind.example")]
        for lookup in resolver._lookups.values():
            lookup.expires = 0
        try:
            found.append(await resolver.resolve("rebind.example"))
        except LinkFailed as failure:
            found.append(failure.status)
        return found

    with nameserver(rebinding) as server:
        assert trio.run(main, server) == [("8.8.8.8",), DownloadStatus.ADDRESS_REFUSED]


def test_servers_are_named_by_address_and_port(tmp_path: Any) -> None:
    assert parse_servers(["1.1.1.1", "9.9.9.9:5353", "2606:4700::1", "[2606:4700::1]:53"]) == [
        ("1.1.1.1", 53),
        ("9.9.9.9", 5353),
        ("2606:4700::1", 53),
        ("2606:4700::1", 53),
    ]
    path = tmp_path / "resolv.conf"
    path.write_text("# c\nsearch x\nnameserver 10.0.0.2\nnameserver ::1\n")
    assert system_servers(path) == [("10.0.0.2", 53), ("::1", 53)]
    assert system_servers(tmp_path / "none") == []
    (tmp_path / "empty").write_text("search x\n")
    assert system_servers(tmp_path / "empty") == []


def test_a_query_that_is_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "_TRY_S", 0.2)
    lost: list[int] = []

    def lossy(question: dns.message.Message, over_tcp: bool) -> dns.message.Message | None:
        lost.append(question.id)
        return normal(question, over_tcp) if len(lost) > 1 else None

    assert look_up("a.example", lossy) == Addresses(("8.8.8.8",), 90.0)
    assert len(lost) >= 2  # more where an answer takes longer than a try


def test_a_name_without_an_address_is_an_answer() -> None:
    found = look_up("a.example", lambda question, _: reply(question))
    assert isinstance(found, Addresses)
    assert found.literals == ()


def by_family(*, a: Answerer, aaaa: Answerer) -> Answerer:
    """Answers each question by its type."""
    return lambda question, over_tcp: (a if kind(question) == "A" else aaaa)(question, over_tcp)


def with_rcode(rcode: dns.rcode.Rcode) -> Answerer:
    def answer(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        found = dns.message.make_response(question)
        found.set_rcode(rcode)
        return found

    return answer


def empty(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
    return reply(question)


def silent(question: dns.message.Message, over_tcp: bool) -> None:
    return None


def referral(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
    found = reply(question)
    found.authority.append(dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example."))
    return found


def zone_without_it(question: dns.message.Message, over_tcp: bool) -> dns.message.Message:
    found = referral(question, over_tcp)
    soa = "ns.example. admin.example. 1 2 3 4 60"
    found.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", soa))
    return found


FAILURES = {
    "SERVFAIL": servfail,
    "REFUSED": with_rcode(dns.rcode.REFUSED),
    "FORMERR": with_rcode(dns.rcode.FORMERR),
    "NOTIMP": with_rcode(dns.rcode.NOTIMP),
    "referral": referral,
}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("other", [empty, with_rcode(dns.rcode.NXDOMAIN)], ids=["empty", "NXDOMAIN"])
def test_half_an_answer_without_an_address_is_trouble(failing: Answerer, other: Answerer) -> None:
    assert look_up("a.example", by_family(a=failing, aaaa=other), ipv6=True) is ResolverTrouble
    if other is empty:
        assert look_up("a.example", by_family(a=other, aaaa=failing), ipv6=True) is ResolverTrouble


@pytest.mark.parametrize("failing", [*FAILURES.values(), silent], ids=[*FAILURES, "silence"])
def test_addresses_of_one_family_are_enough(failing: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "_OTHER_FAMILY_S", 0.05)
    found = look_up("a.example", by_family(a=normal, aaaa=failing), ipv6=True)
    assert found == Addresses(("8.8.8.8",), 90.0)


def test_an_empty_answer_of_the_zone_is_an_answer() -> None:
    found = look_up("a.example", zone_without_it, ipv6=True)
    assert isinstance(found, Addresses)
    assert found.literals == ()


@pytest.mark.parametrize("failing", [servfail, silent])
def test_after_half_an_answer_the_next_source_is_asked(
    failing: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "_TRY_S", 0.05)

    async def main(first: tuple[str, int], second: tuple[str, int]) -> tuple[str, ...]:
        sources = [StubSource([first], ipv6=True), StubSource([second], ipv6=False)]
        sources[0]._resolver.lifetime = 0.3
        sources[1]._resolver.timeout = LIMIT_S
        return await Resolver(sources, AddressPolicy(), LIMIT_S).resolve("a.example")

    with nameserver(by_family(a=failing, aaaa=empty)) as first, nameserver(normal) as second:
        assert trio.run(main, first, second) == ("8.8.8.8",)


def with_records(*records: tuple[str, int, str, str]) -> Answerer:
    return lambda question, _: reply(question, *records)


def chain(*names: str) -> list[tuple[str, int, str, str]]:
    return [(name, 60, "CNAME", target) for name, target in pairwise(names)]


ADDRESS = ("a.example.", 60, "A", "8.8.8.8")
LONG = [f"{'a' if number == 0 else number}.example." for number in range(40)]
RIGHT = Addresses(("8.8.8.8",), 60.0)


def with_another_id(question: dns.message.Message) -> dns.message.Message:
    found = reply(question, ("a.example.", 60, "A", "6.6.6.6"))
    found.id ^= 1
    return found


def for_another_name(question: dns.message.Message) -> dns.message.Message:
    other = dns.message.make_query("b.example", "A", id=question.id)
    return reply(other, ("b.example.", 60, "A", "6.6.6.6"))


def over_tcp_only(found: Callable[[dns.message.Message], Answer]) -> Answerer:
    """Says over UDP that the answer does not fit."""

    def answer(question: dns.message.Message, over_tcp: bool) -> Answer:
        if over_tcp:
            return found(question)
        cut_off = reply(question, ("a.example.", 60, "A", "6.6.6.6"))
        cut_off.flags |= dns.flags.TC
        return cut_off

    return answer


def with_several_addresses(question: dns.message.Message) -> dns.message.Message:
    return reply(question, *(("a.example.", 60, "A", f"8.8.0.{n}") for n in range(60)))


ODD_ANSWERS: dict[str, tuple[Answerer, Addresses | type[Exception]]] = {
    "chain that ends where it begins": (with_records(*chain(*LONG[:2], LONG[0])), ResolverTrouble),
    "name that is its own alias": (with_records(*chain(LONG[0], LONG[0])), ResolverTrouble),
    "chain of 39 names": (with_records(*chain(*LONG)), ResolverTrouble),
    "chain of 9 names": (with_records(*chain(*LONG[:10]), (LONG[9], 60, "A", "8.8.8.8")), RIGHT),
    "chain backwards": (with_records((LONG[2], 60, "A", "8.8.8.8"), *reversed(chain(*LONG[:3]))), RIGHT),
    "chain to a name without an address": (with_records(*chain(*LONG[:2])), Addresses((), 60.0)),
    "address of another name": (with_records(("b.example.", 60, "A", "6.6.6.6")), ResolverTrouble),
    "chain to one name, address of another": (
        with_records(*chain(*LONG[:2]), ("b.example.", 60, "A", "6.6.6.6")),
        ResolverTrouble,
    ),
    "name in upper case": (with_records(("A.EXAMPLE.", 60, "A", "8.8.8.8")), RIGHT),
    "no time to live": (with_records(("a.example.", 0, "A", "8.8.8.8")), Addresses(("8.8.8.8",), 0.0)),
    "an answer with another id first": (lambda q, _: [with_another_id(q), reply(q, ADDRESS)], RIGHT),
    "an answer for another name first": (lambda q, _: [for_another_name(q), reply(q, ADDRESS)], RIGHT),
    "a cut answer first": (lambda q, _: [reply(q, ADDRESS).to_wire()[:-3], reply(q, ADDRESS)], RIGHT),
    "garbage first": (lambda q, _: [b"", b"\0", bytes(50), reply(q, ADDRESS)], RIGHT),
    "its own question first": (lambda q, _: [q, reply(q, ADDRESS)], RIGHT),
    "more over TCP": (
        over_tcp_only(with_several_addresses),
        Addresses(tuple(f"8.8.0.{number}" for number in range(60)), 60.0),
    ),
    "nothing over TCP": (over_tcp_only(lambda _: None), ResolverTrouble),
    "a cut answer over TCP": (over_tcp_only(lambda q: reply(q, ADDRESS).to_wire()[:-3]), ResolverTrouble),
    "an answer with another id over TCP": (over_tcp_only(with_another_id), ResolverTrouble),
    "an answer for another name over TCP": (over_tcp_only(for_another_name), ResolverTrouble),
}


@pytest.mark.parametrize(("answerer", "found"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_odd_answers(answerer: Answerer, found: Addresses | type[Exception]) -> None:
    assert look_up("a.example", answerer) == found


@pytest.mark.parametrize(
    "failing",
    [
        *FAILURES.values(),
        ODD_ANSWERS["address of another name"][0],
        ODD_ANSWERS["name that is its own alias"][0],
    ],
)
def test_after_a_server_that_does_not_answer_the_question_the_next_one_is_asked(failing: Answerer) -> None:
    """In random order, so six times: that all begin with the right one happens once in 64 runs."""
    right = with_records(ADDRESS)
    assert [look_up("a.example", failing, right) for _ in range(6)] == [RIGHT] * 6
    assert look_up("a.example", failing, failing, failing) is ResolverTrouble


def test_an_address_of_one_family_is_enough_in_either() -> None:
    aaaa = with_records(("a.example.", 60, "AAAA", "2606:4700::1"))
    found = look_up("a.example", by_family(a=empty, aaaa=aaaa), ipv6=True)
    assert isinstance(found, Addresses)
    assert found.literals == ("2606:4700::1",)


@pytest.mark.parametrize("address", ["::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::1"])
def test_an_address_of_ipv4_within_ipv6_is_refused(address: str) -> None:
    async def main(server: tuple[str, int]) -> DownloadStatus | None:
        resolver = Resolver([StubSource([server], ipv6=True)], AddressPolicy(), LIMIT_S)
        try:
            await resolver.resolve("a.example")
        except LinkFailed as failure:
            return failure.status
        return None

    with nameserver(by_family(a=empty, aaaa=with_records(("a.example.", 60, "AAAA", address)))) as server:
        assert trio.run(main, server) is DownloadStatus.ADDRESS_REFUSED


@pytest.mark.parametrize(
    "line",
    [
        b"nameserver dns.example",
        b"nameserver [::1]",
        b"nameserver https://10.0.0.3/dns-query",
        b"nameserver",
        b"search a..example " + b"a" * 70,
        b"# gr\xf6\xdfe",
        b"options ndots:many",
    ],
)
def test_lines_of_resolv_conf_that_are_not_understood_are_passed_over(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(line + b"\nnameserver 10.0.0.2 # ours\r\n")
    assert system_servers(path) == [("10.0.0.2", 53)]


def test_only_absolute_names_are_asked_where_there_is_a_search_list(tmp_path: Path) -> None:
    """As in every pod of Kubernetes. A wildcard of the search domain would answer for any dead host."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    namespace = ["unshare", "--map-root-user", "--net", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no user namespaces")
    command = [*namespace, sys.executable, "-m", "tests.download.search_list", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = json.loads(done.stdout)
    dotless, asked = found.pop("without a final dot")
    assert dotless == "93.184.216.34", "the search list of the test is in effect"
    assert len(asked) == 1
    assert found == {way: ["no such name", [f"{DEAD}."]] for way in ("system", "own")}
