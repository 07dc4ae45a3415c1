"""Bodies as servers compress and label them, in parts of any size; and what they cannot do to the reader."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.content_encoding import content_decoder
from laion_etl.download.link_failed import LinkFailed
from laion_etl.settings import DownloadSettings
from tests.download.hostile import GOOD
from tests.download.response_shapes import BODY, raw_deflate
from tests.download.sites import site
from tests.download.test_client import fetch_all

_MAX = 1_000_000
_PART = 65_536


def decoded(codings: list[str], body: bytes, size: int = _PART, max_bytes: int = _MAX) -> bytes:
    decode = content_decoder(codings, max_bytes)
    parts = (body[start : start + size] for start in range(0, len(body), size))
    found = b"".join(data for part in parts for data in decode(part))
    return found + b"".join(decode.finish())


LABELLED: dict[str, tuple[list[str], bytes]] = {
    "nothing": ([], BODY),
    "names of no compression": (["none", "utf-8", "aws-chunked", "image/jpeg"], BODY),
    "gzip": (["gzip"], gzip.compress(BODY)),
    "gzip and zero bytes": (["gzip"], gzip.compress(BODY) + bytes(900)),
    "gzip and what looks like gzip at first": (["gzip"], gzip.compress(BODY) + b"\x1f"),
    "gzip in members": (
        ["gzip"],
        b"".join(gzip.compress(BODY[n : n + 100]) for n in range(0, len(BODY), 100)),
    ),
    "gzip without its end": (["gzip"], gzip.compress(BODY)[:-8]),
    "zlib": (["deflate"], zlib.compress(BODY)),
    "zlib and zero bytes": (["deflate"], zlib.compress(BODY) + bytes(9)),
    "raw deflate": (["deflate"], raw_deflate(BODY)),
    "raw deflate and zero bytes": (["deflate"], raw_deflate(BODY) + bytes(9)),
    "gzip under another name": (["deflate"], gzip.compress(BODY)),
    "twice": (["gzip", "gzip"], gzip.compress(gzip.compress(BODY))),
    "twice, differently": (["deflate", "gzip"], gzip.compress(zlib.compress(BODY))),
    "twice by name, once in fact": (["gzip", "gzip"], gzip.compress(BODY)),
    "not gzip": (["gzip"], BODY),
    "not deflate": (["deflate"], BODY),
    "not br": (["br"], BODY),
    "not zstd": (["zstd", "none"], BODY),
}


@pytest.mark.parametrize(("codings", "body"), LABELLED.values(), ids=LABELLED)
@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 900))
def test_every_way_to_compress_is_undone_in_parts_of_any_size(
    codings: list[str], body: bytes, size: int
) -> None:
    assert decoded(codings, body, size) == BODY


@pytest.mark.parametrize(
    "beginning",
    [b"RIFF\x10\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"User-agent: *\n# All\n", b"<html><head><title>"],
)
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br"])
def test_what_is_not_compressed_is_taken_as_it_is(coding: str, beginning: bytes) -> None:
    assert decoded([coding], beginning + BODY) == beginning + BODY


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["gzip", "deflate", "none"]), max_size=2),
    st.binary(max_size=300),
    st.integers(1, 50),
)
def test_any_bytes_end_as_bytes_or_as_a_broken_response(codings: list[str], body: bytes, size: int) -> None:
    """The same ones, whatever the size of the packets is."""

    def outcome(size: int) -> bytes | None:
        try:
            return decoded(codings, body, size)
        except LinkFailed as failure:
            assert failure.status is S.BAD_RESPONSE
            return None

    assert outcome(size) == outcome(_PART)


def parts_until_refused(codings: list[str], body: bytes) -> tuple[int, LinkFailed]:
    decode = content_decoder(codings, _MAX)
    for number, start in enumerate(range(0, len(body), _PART), 1):
        try:
            assert all(len(data) <= _MAX for data in decode(body[start : start + _PART]))
        except LinkFailed as failure:
            return number, failure
    raise AssertionError("accepted")


EMPTY = gzip.compress(b"", 9)


@pytest.mark.parametrize(
    ("codings", "body", "message"),
    [
        (["gzip"], EMPTY * (20_000_000 // len(EMPTY)), "tiny gzip members"),
        (["gzip"], gzip.compress(b"a") * 500_000, "tiny gzip members"),
        (["gzip", "gzip"], EMPTY * 500_000, "tiny gzip members"),
        (["gzip", "gzip"], gzip.compress(EMPTY * 45_000), "tiny gzip members"),
        (["gzip", "gzip"], gzip.compress(gzip.compress(bytes(9_000_000), 0), 1), ""),
        (["gzip", "gzip", "gzip"], BODY, "too many content-encodings"),
        (["gzip", "br"], b"\x0b\x02" + BODY, "content-encoding br"),
    ],
    ids=["empty members", "small members", "outer", "inner", "bomb in between", "three layers", "brotli"],
)
def test_what_would_only_cost_time_is_refused_early(codings: list[str], body: bytes, message: str) -> None:
    """An attack gets no further than its first parts; between two of them other links go on."""
    try:
        parts, failure = parts_until_refused(codings, body)
    except LinkFailed as error:
        parts, failure = 0, error
    assert parts <= 2
    assert failure.message == message


RULES = b"User-agent: *\nDisallow: /private/\n"
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "utf-8": bytes,
    "aws-chunked": bytes,
    "text/plain": bytes,
    "gzip": gzip.compress,
    "aws-chunked, gzip": gzip.compress,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate": raw_deflate,
    "x-gzip": bytes,
    "br": bytes,
    "binary": gzip.compress,  # compressed, and not labelled so
}

LONG = b"".join(b"# %d\n" % n for n in range(300)) + RULES
CUT_OFF = {label: COMPRESSORS[label] for label in ("gzip", "gzip, gzip", "deflate")}


@pytest.mark.parametrize("name", LABELLED)
def test_a_body_without_its_end_is_known(name: str) -> None:
    codings, body = LABELLED[name]
    decode = content_decoder(codings, _MAX)
    assert b"".join([*decode(body), *decode.finish()]) == BODY
    assert decode.unfinished is (name == "gzip without its end")


def test_robots_txt_is_obeyed_however_it_is_labelled_and_one_that_cannot_be_decoded_allows_nothing() -> None:
    labelled = [(label, compress(RULES)) for label, compress in COMPRESSORS.items()]
    labelled += [("zstd", b"\x28\xb5\x2f\xfd" + RULES), ("dcb", RULES[:12])]
    labelled += [(f"{label},none", compress(LONG)[: -len(LONG) // 40]) for label, compress in CUT_OFF.items()]
    with site() as running:
        running.by_host = {
            (f"h{number}.coded.example", "/robots.txt"): (200, {"Content-Encoding": label}, body)
            for number, (label, body) in enumerate(labelled)
        }
        fetching = DownloadSettings(connect_to=(f"*.coded.example=127.0.0.1:{running.port}",), retries=0)
        hosts = {label: f"http://h{number}.coded.example" for number, (label, _) in enumerate(labelled)}
        found = fetch_all(
            [f"{host}/{path}" for host in hosts.values() for path in ("private/1", "public/1")], fetching
        )
    outcomes = {
        label: (found[f"{host}/private/1"], found[f"{host}/public/1"]) for label, host in hosts.items()
    }
    for label in ("zstd", "dcb", *(f"{label},none" for label in CUT_OFF)):
        assert outcomes.pop(label) == (S.ROBOTS_UNREACHABLE, S.ROBOTS_UNREACHABLE), label
    assert outcomes == dict.fromkeys(COMPRESSORS, (S.OPTED_OUT_ROBOTS_TXT, GOOD))
