"""Builds small WAT files for tests: one gzip member per record, as Common Crawl writes them."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def page_record(url: str, links: Iterable[dict[str, Any]], base: str | None = None) -> bytes:
    """A metadata record about an HTML response."""
    head: dict[str, Any] = {} if base is None else {"Base": base}
    html = {"Head": head, "Links": list(links)}
    return json_record(url, {"HTTP-Response-Metadata": {"HTML-Metadata": html}})


def compact_page_record(url: str, links: Iterable[dict[str, Any]], base: str | None = None) -> bytes:
    """The same as Common Crawl writes it: without spaces, in UTF-8."""
    html = {"Head": {} if base is None else {"Base": base}, "Links": list(links)}
    envelope = {
        "Payload-Metadata": {"HTTP-Response-Metadata": {"Headers": {"Server": "x"}, "HTML-Metadata": html}},
        "WARC-Header-Metadata": {"WARC-Target-URI": url},
    }
    payload = json.dumps({"Envelope": envelope}, ensure_ascii=False, separators=(",", ":"))
    return record(url, payload.encode(errors="surrogatepass"))


def json_record(url: str, payload_metadata: dict[str, Any]) -> bytes:
    envelope = {"WARC-Header-Metadata": {"WARC-Target-URI": url}, "Payload-Metadata": payload_metadata}
    return record(url, json.dumps({"Envelope": envelope}).encode())


def record(url: str, payload: bytes) -> bytes:
    """A metadata record with any payload, as one gzip member."""
    return gzip.compress(plain_record(url, payload), mtime=0)


def plain_record(url: str, payload: bytes) -> bytes:
    """The same without gzip."""
    header = (
        f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {url}\r\n"
        "WARC-Date: 2026-10-21T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    ).encode(errors="surrogatepass")
    return header + payload + b"\r\n\r\n"


def image(url: str | None, alt: str | None = None, title: str | None = None) -> dict[str, Any]:
    attributes = {"url": url, "alt": alt, "title": title}
    return {"path": "IMG@/src", **{name: text for name, text in attributes.items() if text is not None}}


def write_wat(path: Path, records: Iterable[bytes]) -> str:
    path.write_bytes(b"".join(records))
    return str(path)
