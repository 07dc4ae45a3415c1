"""Targets for the other parsers of bytes that strangers, or a spoiled store, can send us.

Each raises nothing but the errors that its reader documents; what it answers fits what was asked.
"""

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from laion_etl.blocklists.syntax import normal_host
from laion_etl.core.errors import InputError, ModelError, SettingsError
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.expressions import Condition
from laion_etl.dataset.manifest import parse_manifest
from laion_etl.dataset.versions import Release
from laion_etl.download.content_encoding import content_decoder
from laion_etl.download.content_opt_out import (
    opted_out_by_header,
    reserved_by_header,
)
from laion_etl.download.deadlines import retry_after_s
from laion_etl.download.http1 import Connection
from laion_etl.download.http_head import is_whole, location_of, parse_head
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import parse_request_url
from laion_etl.io.http_answers import retry_after_s as crawl_retry_after_s
from laion_etl.io.tarshard import TarError, member_places, read_members
from laion_etl.parse.html_process import answer
from laion_etl.removal.lists import read_lines
from laion_etl.score.heads import load_anchors, load_head
from laion_etl.score.keras_head import read_keras_head
from laion_etl.score.nsfw_head import load_nsfw_head
from tests.download.test_http1 import ours, theirs

_MAX_BYTES = 100_000  # of a response
_MOST_PIECES = 200  # many more, and tinier, are refused as an attack
_DIM = 4


class _Pieces:
    """A server that sends bytes in pieces and closes the connection."""

    def __init__(self, data: bytes, size: int) -> None:
        self._source = io.BytesIO(data)
        self._size = size

    async def send(self, data: bytes) -> None: ...

    async def receive(self, max_bytes: int) -> bytes:
        return self._source.read(min(self._size, max_bytes))


class _NoLimits:
    def waiting_for_answer(self) -> None: ...
    def answering(self) -> None: ...


def http(data: bytes) -> None:
    """The first byte is the size of pieces, the rest a response: it is the same in one piece, and for h11."""
    size, raw = (data[0] or 1, data[1:]) if data else (1, b"")
    in_pieces = trio.run(_response, raw, max(size, len(raw) // _MOST_PIECES))
    whole = trio.run(_response, raw, max(1, len(raw)))
    assert in_pieces == whole
    reference = theirs(raw)
    assert isinstance(reference, str) or ours([raw]) == reference


async def _response(raw: bytes, size: int) -> tuple[int, bytes] | str:
    connection, body = Connection(_Pieces(raw, size), _MAX_BYTES), bytearray()
    try:
        head = await connection.request(b"GET", _NoLimits())
        codings = (*head.listed("content-encoding"), *connection.framing.codings)
        decoder = content_decoder(codings, _MAX_BYTES)
        part = b"first"
        while part:
            part = await connection.part()
            for piece in decoder(part) if part else decoder.finish():
                assert len(piece) <= _MAX_BYTES
                body += piece
    except LinkFailed as failure:
        return str(failure.status)
    return head.status, bytes(body)


def headers(data: bytes) -> None:
    """X-Robots-Tag and tdm-reservation: an answer, and none that others take back. Retry-After: a wait."""
    values = data.decode("latin-1").split("\n")
    for judge in (opted_out_by_header, reserved_by_header):
        assert judge(values) == any(judge([value]) for value in values)
    for value in values:
        assert (retry_after_s(value) or 0) >= 0
        assert crawl_retry_after_s({"Retry-After": value}) >= 0


def redirects(data: bytes) -> None:
    """A URL, a newline, the head of a redirect: a request of one line to one host, or LinkFailed."""
    url, _, raw = data.partition(b"\n")
    with suppress(LinkFailed):
        head = parse_head(raw)
        target = parse_request_url(location_of(head), parse_request_url(url.decode("latin-1")).url)
        assert target.scheme in ("http", "https")
        assert target.path.startswith("/")
        assert all("!" <= character <= "~" for character in target.path + target.host_header)
        assert not set("/?#@") & set(target.host)
        assert 0 <= target.port < 1 << 16
        assert parse_request_url(target.url) == target
        is_whole(head)


def html(data: bytes) -> None:
    """A charset, a newline, a page: an answer in JSON."""
    charset, _, page = data.partition(b"\n")
    found = answer(page, charset.decode("latin-1"), ["alt", "title", "link", "og"])
    assert b'"error"' not in found[:9]


def tars(data: bytes) -> None:
    """A shard: its members, or TarError; listing them agrees with reading them."""
    with suppress(TarError):
        members = [(name, len(content)) for name, content in read_members(io.BytesIO(data), 1 << 20)]
        assert [(name, size) for name, _, size in member_places(io.BytesIO(data))] == members


def manifests(data: bytes) -> None:
    """A manifest, or InputError; no file of it is outside its dataset."""
    with suppress(InputError):
        manifest = parse_manifest(Release("laion", "1"), data, "manifest.json")
        assert all(file.name.startswith("dataset/laion/") for file in manifest.files)


def stats(data: bytes) -> None:
    """A record of a stage, or one of the errors that its readers take for a damaged file."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, InputError, SettingsError):
        found = StageStats.from_json(data)
        assert not any(".." in output.name.split("/") for output in found.outputs)


def removals(data: bytes) -> None:
    """A removal list, or InputError that names a line."""
    with suppress(InputError):
        assert read_lines(data, "list").lines


def hosts(data: bytes) -> None:
    """A name of a blocklist, or ValueError: its normal form is its own."""
    with suppress(ValueError):
        form = normal_host(data.decode("utf-8", "replace"))
        assert not form or normal_host(form) == form


def heads(data: bytes) -> None:
    """A file as any kind of head, or ModelError; nothing in it runs."""
    with tempfile.TemporaryDirectory() as folder:
        for ending, load in _LOADERS.items():
            path = Path(folder, f"head{ending}")
            path.write_bytes(data)
            with suppress(ModelError):
                load(path)


_LOADERS: dict[str, Callable[[Path], object]] = {
    ".npy": lambda path: load_anchors(path, _DIM),
    ".pth": lambda path: load_head(path, _DIM),
    ".safetensors": lambda path: load_head(path, _DIM),
    ".zip": read_keras_head,
    ".pt": lambda path: load_nsfw_head(path, _DIM),
    ".dense": lambda path: load_nsfw_head(path, _DIM),
}


def expressions(data: bytes) -> None:
    """The condition of a subset, or SettingsError in one line."""
    try:
        Condition("mine", data.decode("utf-8", "replace"))
    except SettingsError as error:
        assert "\n" not in str(error)


FOREIGN: tuple[Callable[[bytes], None], ...] = (
    http,
    headers,
    redirects,
    html,
    tars,
    manifests,
    stats,
    removals,
    hosts,
    heads,
    expressions,
)
