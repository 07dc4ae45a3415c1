"""WAT records as Common Crawl's extractor (ia-web-commons) writes them: one gzip member each.

Every page gives three metadata records, about its request, its response and the crawler's own metadata;
only the response has `HTML-Metadata`. Field names and their order are those of the real files.
"""

import base64
import gzip
import hashlib
import json
import random
import zlib
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from laion_etl.minicrawl.pages import Page

Json = dict[str, Any]  # a JSON object to be written

_FETCHED, _EXTRACTED = "2026-10-20T08:%02d:%02dZ", "2026-10-31T01:16:45Z"
_MEMBER_HEADER, _MEMBER_FOOTER = 10, 8


class WatWriter:
    """The records of one WAT file, in order."""

    def __init__(self, warc_name: str, rng: random.Random) -> None:
        self._warc_name = warc_name
        self._rng = rng
        self._offset = 1_000  # where the described record begins in the WARC file
        self._warcinfo = self._uuid()

    def warcinfo(self) -> bytes:
        """The first record of every file."""
        payload = (
            b"Software-Info: ia-web-commons.1.1.10-SNAPSHOT\r\n"
            b"Extracted-Date: Sat, 31 Oct 2026 01:16:45 GMT\r\n"
            b"hostname: minicrawl\r\n"
            b"format: WARC File Format 1.0\r\n"
            b"conformsTo: http://bibnum.bnf.fr/WARC/WARC_ISO_28500_version1_latestdraft.pdf\r\n\r\n"
        )
        name = self._warc_name.replace(".warc.gz", ".warc.wat.gz")
        headers = {
            "WARC-Type": "warcinfo",
            "WARC-Date": _EXTRACTED,
            "WARC-Filename": name,
            "WARC-Record-ID": self._uuid(),
            "Content-Type": "application/warc-fields",
        }
        return _member(headers, payload)

    def page(self, page: Page) -> list[bytes]:
        """The records of an HTML page."""
        return self._exchange(page.url, "text/html; charset=UTF-8", _html_metadata(page))

    def document(self, url: str) -> list[bytes]:
        """The records of a document that is not HTML, here a PDF."""
        return self._exchange(url, "application/pdf", None)

    def broken(self, page: Page) -> list[bytes]:
        """A page whose response record holds half a JSON document."""
        request, response, metadata = self._envelopes(page.url, "text/html", _html_metadata(page))
        text = json.dumps(response, ensure_ascii=False)
        half = text[: len(text) // 2].encode()
        payloads = (_json(request), half, _json(metadata))
        return [self._record(page.url, payload) for payload in payloads]

    def _exchange(self, url: str, content_type: str, html: Json | None) -> list[bytes]:
        return [self._record(url, _json(e)) for e in self._envelopes(url, content_type, html)]

    def _envelopes(self, url: str, content_type: str, html: Json | None) -> tuple[Json, Json, Json]:
        date = _FETCHED % (self._rng.randrange(60), self._rng.randrange(60))
        request_id, response_id = self._uuid(), self._uuid()
        length = self._rng.randint(6_000, 90_000)
        request = self._envelope(
            "request", url, date, request_id, 265, {"HTTP-Request-Metadata": _request(url)}
        )
        answer = _response(content_type, length) | ({"HTML-Metadata": html} if html is not None else {})
        response = self._envelope(
            "response", url, date, response_id, length + 240, {"HTTP-Response-Metadata": answer}
        )
        fields = [{"Name": "fetchTimeMs", "Value": str(self._rng.randint(40, 900))}]
        note = {"WARC-Metadata-Metadata": {"Metadata-Records": fields}}
        return request, response, self._envelope("metadata", url, date, self._uuid(), 201, note)

    def _envelope(self, kind: str, url: str, date: str, record_id: str, length: int, about: Json) -> Json:
        packed = length // 4 + 60
        content = "application/warc-fields" if kind == "metadata" else f"application/http; msgtype={kind}"
        container = {
            "Filename": self._warc_name,
            "Compressed": True,
            "Offset": str(self._offset),
            "Gzip-Metadata": {
                "Deflate-Length": str(packed),
                "Header-Length": str(_MEMBER_HEADER),
                "Footer-Length": str(_MEMBER_FOOTER),
                "Inflated-CRC": str(zlib.crc32(record_id.encode())),
                "Inflated-Length": str(length + 361),
            },
        }
        self._offset += packed
        payload_metadata = {
            "Actual-Content-Type": content if kind != "metadata" else "application/metadata-fields",
            **about,
            "Actual-Content-Length": str(length),
            "Trailing-Slop-Length": "4",
            "Block-Digest": _digest(record_id.encode()),
        }
        header = {
            "WARC-Type": kind,
            "WARC-Date": date,
            "WARC-Record-ID": record_id,
            "Content-Length": str(length),
            "Content-Type": content,
            "WARC-Warcinfo-ID": self._warcinfo,
            "WARC-IP-Address": "192.0.2.80",
            "WARC-Target-URI": url,
        }
        envelope = {
            "Payload-Metadata": payload_metadata,
            "Format": "WARC/1.0",
            "WARC-Header-Length": "357",
            "WARC-Header-Metadata": header,
        }
        return {"Container": container, "Envelope": envelope}

    def _record(self, url: str, payload: bytes) -> bytes:
        headers = {
            "WARC-Type": "metadata",
            "WARC-Target-URI": url,
            "WARC-Date": _EXTRACTED,
            "WARC-Record-ID": self._uuid(),
            "WARC-Refers-To": self._uuid(),
            "Content-Type": "application/json",
        }
        return _member(headers, payload)

    def _uuid(self) -> str:
        return f"<urn:uuid:{UUID(int=self._rng.getrandbits(128), version=4)}>"


def _member(headers: dict[str, str], payload: bytes) -> bytes:
    length = {"Content-Length": str(len(payload)), "WARC-Block-Digest": _digest(payload)}
    lines = [f"{name}: {value}\r\n" for name, value in (headers | length).items()]
    record = b"WARC/1.0\r\n" + "".join(lines).encode() + b"\r\n" + payload + b"\r\n\r\n"
    return gzip.compress(record, 6, mtime=0)


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _json(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _request(url: str) -> Json:
    parts = urlsplit(url)
    return {
        "Request-Message": {"Method": "GET", "Path": parts.path, "Version": "HTTP/1.1"},
        "Headers-Length": "263",
        "Headers": {
            "User-Agent": "CCBot/2.0 (https://commoncrawl.org/faq/)",
            "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Accept-Language": "en-US,en;q=0.5",
            "Accept-Encoding": "br,gzip",
            "Host": parts.netloc,
            "Connection": "Keep-Alive",
        },
        "Entity-Length": "0",
        "Entity-Digest": _digest(b""),
        "Entity-Trailing-Slop-Length": "0",
    }


def _response(content_type: str, length: int) -> Json:
    return {
        "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
        "Headers-Length": "240",
        "Headers": {
            "Content-Type": content_type,
            "Server": "nginx",
            "X-Crawler-Content-Encoding": "gzip",
            "X-Crawler-Content-Length": str(length // 4),
            "Content-Length": str(length),
        },
        "Entity-Length": str(length),
        "Entity-Trailing-Slop-Length": "0",
    }


def _html_metadata(page: Page) -> Json:
    links: list[Json] = [
        {"path": "A@/href", "url": "/", "text": page.title},
        {"path": "A@/href", "url": "../archive.html", "text": "2026"},
    ]
    for image in page.images:
        links.append(dict(image))
        if len(links) % 3 == 0:
            links.append({"path": "A@/href", "url": f"?show={len(links)}", "rel": "nofollow"})
    if page.licence:
        links.append({"path": "A@/href", "url": page.licence, "rel": "license", "text": "CC"})
    links.append({"path": "TD@/background", "url": "/img/paper.png"})
    return ({} if page.headless else {"Head": _head(page)}) | {"Links": links}


def _head(page: Page) -> Json:
    head: Json = {
        "Metas": [{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        "Title": page.title,
        "Link": [
            {"path": "LINK@/href", "url": "/style.css", "rel": "stylesheet", "type": "text/css"},
            {"path": "LINK@/href", "url": page.url, "rel": "canonical"},
        ],
        "Scripts": [{"path": "SCRIPT@/src", "url": "/js/gallery.js", "type": "text/javascript"}],
    }
    return head | ({"Base": page.base} if page.base else {})
