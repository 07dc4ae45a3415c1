"""Builds small WARC files of responses: one gzip member per record, as Common Crawl writes them."""

import gzip
from collections.abc import Mapping


def response(
    url: str,
    body: bytes | str,
    headers: Mapping[str, str] | None = None,
    status: str = "200 OK",
) -> bytes:
    """A response record without gzip; HTML in UTF-8 unless the headers say something else."""
    data = body.encode() if isinstance(body, str) else body
    named = {"Content-Type": "text/html; charset=utf-8"} if headers is None else headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return warc_record("response", url, f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data)


def warc_record(kind: str, url: str, payload: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        "WARC-Date: 2026-10-21T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload + b"\r\n\r\n"


def gzipped(*records: bytes) -> bytes:
    return b"".join(gzip.compress(record, mtime=0) for record in records)
