"""Hosts that share a place in any table whose hash everyone can compute."""

from itertools import groupby, product

import numpy as np
import pytest

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.kernels import constant, hash_of, keyed_hash
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
