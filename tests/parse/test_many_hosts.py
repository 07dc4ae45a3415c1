"""Hosts chosen by someone who knows the code: to share a place in a table, or to look like others."""

from itertools import groupby, product

import numpy as np
import pytest

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import constant, hash_of, keyed_hash
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.settings import ParseSettings
from laion_etl.urls.hosts import HostRule

_SLOTS = 1 << 17
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PIECES = ["".join(letters) for letters in product(_LETTERS, repeat=3)]
_NO_KEY = np.zeros(2, np.uint64)


def fnv_state(state: int, text: str) -> int:
    """The lowest bits of FNV-1a depend on those before only."""
    for byte in text.encode():
        state = ((state ^ byte) * 0x100000001B3) % _SLOTS
    return state


def colliding_hosts(doublings: int) -> list[str]:
    """Hosts with the same lowest bits of FNV-1a: after each pair of pieces the states are equal."""
    hosts, state = [""], 0xCBF29CE484222325 % _SLOTS
    for _ in range(doublings):
        seen: dict[int, str] = {}
        for piece in _PIECES:
            after = fnv_state(state, piece)
            if after in seen:
                hosts = [host + choice for host in hosts for choice in (seen[after], piece)]
                state = after
                break
            seen[after] = piece
    return [f"{host}.com" for host in hosts]


def test_hosts_chosen_to_collide_are_spread_over_the_table() -> None:
    """Else each of n would be compared with all before: 60,000 made a WAT file take 3.4 times as long."""
    hosts = colliding_hosts(11)
    assert len({*hosts}) == 2048
    arrays = [constant(host.encode()) for host in hosts]
    assert len({int(hash_of(array, 0, array.size)) % _SLOTS for array in arrays}) == 1
    arena = ByteArena(1 << 16)
    spans = np.array([arena.add(f"https://{host}/a.jpg".encode()) for host in hosts], np.int32)
    urls = spans[:, 0].copy(), spans[:, 1].copy()
    rule = HostRule(ParseSettings(), lambda _: False)

    numbers = rule.judge(arena, urls, np.empty(len(hosts), np.uint8))

    assert numbers.tolist() == [*range(2048)], "by first appearance: the key is random"
    runs = [len([*run]) for used, run in groupby((rule._table > 0).tolist()) if used]
    assert max(runs) < 100


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (1, 0xEBD11618F299A286),
        (7, 0xA403A794D701B440),
        (8, 0xB9B64644C5C3DDAE),
        (9, 0xEFCFA4BCE88ABC11),
        (15, 0x6DBD165C1D041CAF),
        (16, 0xF3515B9070FA6F24),
        (17, 0xB738AC62BF8CAB50),
        (40, 0x09F7338EDDD7550E),
    ],
)
def test_the_keyed_hash_is_siphash(size: int, value: int) -> None:
    """Values of `hash(bytes)` in CPython 3.11 with PYTHONHASHSEED=0, which is SipHash-1-3 with the key 0."""
    data = constant(b"before" + bytes(range(65, 65 + size)) + b"after")
    assert int(keyed_hash(data, 6, 6 + size, _NO_KEY)) == value
    assert int(keyed_hash(data, 6, 6 + size, np.ones(2, np.uint64))) != value


_LABELS = (
    "",
    "a",
    "www",
    "com",
    "co",
    "uk",
    "kobe",
    "jp",
    "city",
    "localhost",
    "local",
    "xn--p1ai",
    "1",
    "127",
)
_HOSTILE = (
    *(".".join(labels) for size in (1, 2, 3) for labels in product(_LABELS, repeat=size)),
    *(
        f"{name}{end}"
        for name in ("a.com", "a.co.uk", "8.8.8.8", "a")
        for end in (".", "..", ".com", ".com.")
    ),
    *("google-analytics.com", "x.google-analytics.com.", "google-analytics.com.com", "xgoogle-analytics.com"),
    *("www.facebook.com", "facebook.com.", "facebook.co.uk", "t.co", "t.co.", "a.t.co", "co.t", "x.t.c"),
    *("[::1]", "[2606:4700::1111]", "[64:ff9b::a00:1]", "10.0.0.1", "010.0.0.1", "1.2.3", "1.2.3.4.5"),
    *("home.arpa", "a.home.arpa", "a.onion", "a.internal", "a_b.com", "-.com", "a.c-m", "com.com", "a.COM"),
    *("github.io", "a.github.io", "a.b.github.io", "blogspot.com", "a.blogspot.com", "s3.amazonaws.com"),
    *(f"{'x' * size}.{'y' * (56 - size)}.de" for size in (1, 28, 55)),
)


@pytest.mark.parametrize("refuse_trackers", [True, False])
def test_the_kernel_finds_the_domains_that_the_rule_finds(refuse_trackers: bool) -> None:
    hosts = list(dict.fromkeys(host for host in _HOSTILE if host))
    rule = HostRule(ParseSettings(refuse_trackers=refuse_trackers))
    arena = ByteArena(1 << 16)
    spans = np.array([arena.add(f"https://{host}/a.jpg".encode()) for host in hosts], np.int32)
    reasons = np.empty(len(hosts), np.uint8)

    numbers = rule.judge(arena, (spans[:, 0].copy(), spans[:, 1].copy()), reasons)

    data, starts, ends = rule.domains(numbers)
    found = [data[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
    expected = [rule._judged(host) for host in hosts]
    assert found == [domain for domain, _, _ in expected]
    codes = {code: reason for reason, code in REASON_CODES.items()}
    assert [codes.get(int(code)) for code in reasons] == [reason for _, reason, _ in expected]
    refused = {reason for _, reason, _ in expected if reason}
    assert refused == {ParseReason.HOST_NOT_PUBLIC, *([ParseReason.TRACKER] if refuse_trackers else [])}
