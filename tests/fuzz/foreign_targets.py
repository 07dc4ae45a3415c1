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
    opted_out_by_metadata,
    reserved_by_header,
)
from laion_etl.download.http1 import Connection
from laion_etl.download.icc_profile import is_srgb
from laion_etl.download.image_header import ImageRules, dimensions, plain_size, refused_by_beginning
from laion_etl.download.jpeg_segments import has_every_coefficient, too_many_scans
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.png_chunks import without_extras
from laion_etl.download.robots_rules import parse_robots_txt
from laion_etl.download.tdmrep import is_reserved, parse_tdmrep
from laion_etl.download.webp_chunks import with_right_length
from laion_etl.io.tarshard import TarError, member_places, read_members
from laion_etl.parse.html_process import answer
from laion_etl.removal.lists import read_lines
from laion_etl.score.heads import load_anchors, load_head
from laion_etl.score.keras_head import read_keras_head
from laion_etl.score.nsfw_head import load_nsfw_head

_MAX_BYTES = 100_000  # of a response
_DIM = 4
_IMAGES = ImageRules(min_bytes=1, max_pixels=1 << 20, min_side=1, max_aspect_ratio=0)


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
    """The first byte is the size of pieces, the rest a response: it is the same in one piece."""
    size, raw = (data[0] or 1, data[1:]) if data else (1, b"")
    assert trio.run(_response, raw, size) == trio.run(_response, raw, max(1, len(raw)))


async def _response(raw: bytes, size: int) -> tuple[int, bytes] | str:
    connection, body = Connection(_Pieces(raw, size), _MAX_BYTES), bytearray()
    try:
        head = await connection.request(b"GET", _NoLimits())
        codings = (*head.listed("content-encoding"), *connection.framing.codings)
        decoder = content_decoder(codings, _MAX_BYTES)
        while part := await connection.part():
            for piece in decoder(part):
                assert len(piece) <= _MAX_BYTES
                body += piece
    except LinkFailed as failure:
        return str(failure.status)
    return head.status, bytes(body)


def robots(data: bytes) -> None:
    """A path, a newline, robots.txt: an answer for this agent; what is allowed of nothing is everything."""
    path, _, text = data.partition(b"\n")
    rules = parse_robots_txt(text, "laion-etl")
    rules.allows("/" + path.decode("latin-1").lstrip("/"))
    assert parse_robots_txt(b"", "laion-etl").allows("/")


def tdmrep(data: bytes) -> None:
    """A path, a newline, tdmrep.json: an answer."""
    path, _, text = data.partition(b"\n")
    is_reserved(parse_tdmrep(text), "/" + path.decode("latin-1").lstrip("/"))


def headers(data: bytes) -> None:
    """X-Robots-Tag and tdm-reservation: an answer."""
    values = data.decode("latin-1").split("\n")
    opted_out_by_header(values)
    reserved_by_header(values)


def images(data: bytes) -> None:
    """Headers and metadata of images, whole or cut off: a size that was there, and never an error."""
    refused_by_beginning(data, _IMAGES)
    size = dimensions(data)
    assert plain_size(data) in (None, size)
    opted_out_by_metadata(data)
    too_many_scans(data)
    has_every_coefficient(data)
    is_srgb(data)
    with_right_length(data)
    with suppress(ValueError):  # a chunk that cannot be left out
        assert len(without_extras(data)) <= len(data) + 12


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
    robots,
    tdmrep,
    headers,
    images,
    html,
    tars,
    manifests,
    stats,
    removals,
    hosts,
    heads,
    expressions,
)
