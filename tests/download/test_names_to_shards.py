"""Names of hosts through the whole downloader: a real nameserver, and what becomes of each link."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

import laion_etl
from laion_etl.core.errors import OutageError
from laion_etl.download import client, politeness, resolver
from laion_etl.download.nameservers import StubSource
from tests.download.sites import site
from tests.download.test_nameservers import (
    Answer,
    Answerer,
    empty,
    nameserver,
    referral,
    reply,
    servfail,
    with_rcode,
    zone_without_it,
)

HERE = "127.0.0.1"  # which the tests allow


def first_label(question: dns.message.Message) -> str:
    return str(question.question[0].name).split(".")[0].lower()


def addresses(*values: str) -> Answerer:
    return lambda question, _: reply(question, *((name_of(question), 60, "A", one) for one in values))


def name_of(question: dns.message.Message) -> str:
    return str(question.question[0].name)


def aliases(count: int, *end: str) -> Answerer:
    def answer(question: dns.message.Message, _: bool) -> dns.message.Message:
        names = [name_of(question), *(f"c{number}.example." for number in range(count))]
        chain = [(name, 60, "CNAME", names[place]) for place, name in enumerate(names[:-1], 1)]
        return reply(question, *chain, *((names[-1], 60, "A", one) for one in end))

    return answer


def over_tcp(question: dns.message.Message, over: bool) -> dns.message.Message:
    found = reply(question, (name_of(question), 60, "A", HERE if over else "10.0.0.1"))
    found.flags |= 0 if over else dns.flags.TC
    return found


def nowhere_with_an_address(question: dns.message.Message, over: bool) -> dns.message.Message:
    found = addresses(HERE)(question, over)
    assert isinstance(found, dns.message.Message)
    found.set_rcode(dns.rcode.NXDOMAIN)
    return found


def misplaced(question: dns.message.Message, _: bool) -> Answer:
    return reply(question, ("other.example.", 60, "A", HERE))


def forged_first(question: dns.message.Message, _: bool) -> list[Answer]:
    forged, real = (reply(question, (name_of(question), 60, "A", one)) for one in ("10.0.0.1", HERE))
    forged.id ^= 1
    return [forged, b"", bytes(40), real]


def in_upper_case(question: dns.message.Message, _: bool) -> dns.message.Message:
    return reply(question, (name_of(question).upper(), 60, "A", HERE))


# By the first label of the name: the answer, and what becomes of the link.
CASES: dict[str, tuple[Answerer, str]] = {
    "plain": (addresses(HERE), "success"),
    "under_score": (addresses(HERE), "success"),
    "upper": (in_upper_case, "success"),
    "tcp": (over_tcp, "success"),
    "forged": (forged_first, "success"),
    "alias": (aliases(8, HERE), "success"),
    "mixed": (addresses("10.0.0.1", "169.254.169.254", HERE), "success"),
    "silent-first": (addresses("127.0.0.3", HERE), "success"),
    "private": (addresses("10.0.0.1", "192.168.1.1"), "address_refused"),
    "metadata": (addresses("169.254.169.254"), "address_refused"),
    "zero": (addresses("0.0.0.0"), "address_refused"),
    "alias-to-private": (aliases(2, "10.0.0.1"), "address_refused"),
    "nowhere": (with_rcode(dns.rcode.NXDOMAIN), "dns_failed"),
    "nowhere-with-address": (nowhere_with_an_address, "resolver_failed"),
    "without": (empty, "dns_failed"),
    "zone": (zone_without_it, "dns_failed"),
    "alias-to-nothing": (aliases(1), "dns_failed"),
    "servfail": (servfail, "resolver_failed"),
    "refused": (with_rcode(dns.rcode.REFUSED), "resolver_failed"),
    "notauth": (with_rcode(dns.rcode.NOTAUTH), "resolver_failed"),
    "referral": (referral, "resolver_failed"),
    "misplaced": (misplaced, "resolver_failed"),
    "loop": (aliases(20, HERE), "resolver_failed"),
}


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Downloads a link of each host; the nameservers given are the only ones. Returns the statuses."""
    monkeypatch.setattr(politeness, "_RESOLVER_WAIT_S", 0.05)
    monkeypatch.setattr(resolver, "_TROUBLE_TTL_S", 0.04)

    def run(hosts: list[str], *answerers: Answerer) -> list[str]:
        with ExitStack() as stack:
            servers = [stack.enter_context(nameserver(answerer)) for answerer in answerers]
            monkeypatch.setattr(client, "_sources", lambda _: [StubSource(servers, ipv6=False)])
            port = stack.enter_context(site()).port
            shard = laion_etl.download(
                [f"http://{host}:{port}/1.jpg" for host in hosts],
                out=tmp_path,
                allow_networks=("127.0.0.0/8",),
                ports=(port,),
                resolve_timeout_s=60.0,
                decoders=1,
                perceptual_hashes=False,
            )
            return list(shard.outcomes["status"].to_pylist())

    return run


def by_name(question: dns.message.Message, over: bool) -> Answer | list[Answer]:
    return CASES[first_label(question)][0](question, over)


def test_what_becomes_of_the_links(download: Callable[..., list[str]]) -> None:
    hosts = {f"{label}.example": outcome for label, (_, outcome) in CASES.items()}
    hosts |= {"plain.example.": "success", "PLAIN.Example": "success"}
    assert dict(zip(hosts, download(list(hosts), by_name), strict=True)) == hosts


def test_the_next_nameserver_is_asked_after_one_that_cannot_answer(
    download: Callable[..., list[str]],
) -> None:
    hosts = [f"{label}.example" for label, (_, outcome) in CASES.items() if outcome == "resolver_failed"]
    assert download(hosts, by_name, addresses(HERE)) == ["success"] * len(hosts)


def test_a_few_hosts_that_cannot_be_resolved_are_no_outage(download: Callable[..., list[str]]) -> None:
    """Nameservers of dead domains often answer SERVFAIL, and a list of links may be short."""
    assert download(["servfail.example", "plain.example"], by_name) == ["resolver_failed", "success"]


@pytest.mark.parametrize(
    "hosts", [["servfail.example"], [*(f"a{n}.servfail.example" for n in range(11)), "plain.example"]]
)
def test_an_outage_of_the_resolver_is_one(hosts: list[str], download: Callable[..., list[str]]) -> None:
    def answer(question: dns.message.Message, over: bool) -> Answer | list[Answer]:
        return by_name(question, over) if first_label(question) == "plain" else servfail(question, over)

    with pytest.raises(OutageError, match="cannot resolve the hosts of"):
        download(hosts, answer)
