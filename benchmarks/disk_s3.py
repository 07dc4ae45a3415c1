"""A small S3 server for benchmarks: objects are files on disk, and each request waits as long as in S3.

    python -m benchmarks.disk_s3 --folder /tmp/objects --port 9000 --delay-ms 20 60

It serves what laion_etl and boto3 use: GET with ranges, HEAD, PUT (also in parts, with If-Match and
If-None-Match), DELETE (also of many), and ListObjectsV2. The delay is drawn anew for each request and does
not limit how many are served at a time. Bodies pass at the speed of loopback.

Why not a server from a package: moto keeps every object in memory. localbucket stores files, but each page of
a list walks the whole bucket, which costs the square of the number of objects, and it has no If-Match.
The ETag is made of the file's time, size and inode: it changes with each write, as S3's does.
"""

import argparse
import asyncio
import bisect
import json
import os
import random
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

import uvicorn

_PAGE = 1_000
_PARTIAL = ".uploads"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_LAST = "\U0010ffff"  # follows every name with the same beginning


class S3Error(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Objects:
    """The objects of all buckets: name with bucket -> ETag and size; names are kept in order for lists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / _PARTIAL).mkdir(parents=True, exist_ok=True)
        self.scan()

    def scan(self) -> None:
        """Read the folder: others have written into it."""
        self._known: dict[str, tuple[str, int]] = {}
        for place, _, files in os.walk(self.folder):
            base = os.path.relpath(place, self.folder)
            if base.split("/")[0] != _PARTIAL:
                for name in files:
                    self._known[f"{base}/{name}"] = _seen(Path(place, name).stat())
        self._names = sorted(self._known)

    def get(self, name: str) -> tuple[str, int]:
        """Return ETag and size. Raises S3Error if there is no such object."""
        if name not in self._known:
            raise S3Error(404, "NoSuchKey")
        return self._known[name]

    def put(self, name: str, parts: list[bytes] | list[Path], headers: dict[str, str]) -> str:
        """Write an object of data or files, one after the other; returns its ETag."""
        self._check(name, headers)
        target, spool = self.folder / name, self.folder / _PARTIAL / secrets.token_hex(8)
        target.parent.mkdir(parents=True, exist_ok=True)
        with spool.open("wb") as file:
            for part in parts:
                file.write(part if isinstance(part, bytes) else part.read_bytes())
        spool.rename(target)
        if name not in self._known:
            bisect.insort(self._names, name)
        self._known[name] = _seen(target.stat())
        return self._known[name][0]

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        if self._known.pop(name, None):
            self._names.pop(bisect.bisect_left(self._names, name))
            (self.folder / name).unlink()

    def after(self, name: str, prefix: str) -> Iterator[str]:
        """Yield the names behind `name` that begin with a prefix, in order."""
        known = self._names
        place = bisect.bisect_left(known, prefix) if name < prefix else bisect.bisect_right(known, name)
        while place < len(self._names) and self._names[place].startswith(prefix):
            skip = yield self._names[place]
            place = bisect.bisect_right(self._names, skip) if skip else place + 1

    def _check(self, name: str, headers: dict[str, str]) -> None:
        etag = self._known.get(name, ("", 0))[0]
        if headers.get("if-none-match") == "*" and etag:
            raise S3Error(412, "PreconditionFailed")
        if "if-match" in headers and headers["if-match"] != etag:
            raise S3Error(412 if etag else 404, "PreconditionFailed" if etag else "NoSuchKey")


def _seen(stat: os.stat_result) -> tuple[str, int]:
    return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"', stat.st_size


class Server:
    """The ASGI application."""

    def __init__(self, folder: Path, delay_s: tuple[float, float]) -> None:
        self.objects = Objects(folder)
        self.delay_s = delay_s
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(1)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        path = unquote(scope["raw_path"].decode().partition("?")[0]).lstrip("/")
        if path.startswith("_"):
            status, headers, data = self._control(path)
        else:
            await asyncio.sleep(self._chance.uniform(*self.delay_s))
            query = {
                name: values[0]
                for name, values in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items()
            }
            given = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
            status, headers, data = self._answered(scope["method"], path, query, given, body)
        length = headers.pop("Content-Length", str(len(data)))
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*named, (b"Content-Length", length.encode())],
            }
        )
        await send({"type": "http.response.body", "body": data})

    def _control(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "_scan":
            self.objects.scan()
        return 200, {}, json.dumps(self.counts).encode()

    def _answered(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        kind = "LIST" if method == "GET" and "/" not in path.strip("/") else method
        self.counts[kind] += 1
        self.counts["bytes in"] += len(body)
        try:
            status, more, data = self._done(kind, path, query, headers, body)
        except S3Error as error:
            text = f"<?xml version='1.0'?><Error><Code>{error.code}</Code></Error>"
            status, more, data = error.status, {}, b"" if method == "HEAD" else text.encode()
        self.counts["bytes out"] += len(data)
        return status, more, data

    def _done(
        self, kind: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if "aws-chunked" in headers.get("content-encoding", ""):
            raise S3Error(501, "NotImplemented")  # botocore sends it over TLS only
        if kind == "LIST":
            return 200, {}, self._list(path.strip("/"), query).encode()
        if kind in ("GET", "HEAD"):
            return self._read(kind, path, headers)
        if kind == "PUT":
            if "uploadId" in query:
                part = self._part(query["uploadId"], int(query["partNumber"]))
                part.write_bytes(body)
                return 200, {"ETag": f'"{len(body):x}"'}, b""
            if source := unquote(headers.get("x-amz-copy-source", "")):
                return 200, {}, self._copy(source.lstrip("/"), path, headers).encode()
            return 200, {"ETag": self.objects.put(path, [body], headers)}, b""
        if kind == "DELETE":
            if "uploadId" in query:
                self._parts(query["uploadId"], delete=True)
            else:
                self.objects.delete(path)
            return 204, {}, b""
        if kind == "POST":
            return 200, {}, self._posted(path, query, headers, body).encode()
        raise S3Error(501, "NotImplemented")

    def _copy(self, source: str, path: str, headers: dict[str, str]) -> str:
        if (
            headers.get("x-amz-copy-source-if-match", self.objects.get(source)[0])
            != self.objects.get(source)[0]
        ):
            raise S3Error(412, "PreconditionFailed")
        etag = self.objects.put(path, [self.objects.folder / source], headers)
        return _xml("CopyObjectResult", "ETag", etag)

    def _read(self, kind: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "/" not in path.strip("/"):
            return 200, {}, b""  # a bucket
        etag, size = self.objects.get(path)
        answer = {"ETag": etag, "Content-Type": "binary/octet-stream"}
        if kind == "HEAD":
            return 200, {**answer, "Content-Length": str(size)}, b""
        with (self.objects.folder / path).open("rb") as file:
            if not (match := _RANGE.match(headers.get("range", ""))):
                return 200, answer, file.read()
            first, last = int(match[1]), min(int(match[2] or size), size - 1)
            if first > last:
                raise S3Error(416, "InvalidRange")
            file.seek(first)
            answer["Content-Range"] = f"bytes {first}-{last}/{size}"
            return 206, answer, file.read(last - first + 1)

    def _posted(self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> str:
        if "uploads" in query:
            upload = secrets.token_hex(8)
            (self.objects.folder / _PARTIAL / upload).mkdir()
            return _xml("InitiateMultipartUploadResult", "UploadId", upload)
        if "uploadId" in query:
            etag = self.objects.put(path, self._parts(query["uploadId"]), headers)
            self._parts(query["uploadId"], delete=True)
            return _xml("CompleteMultipartUploadResult", "ETag", etag)
        if "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.objects.delete(f"{path.strip('/')}/{key}")
            return "<DeleteResult/>"
        raise S3Error(501, "NotImplemented")

    def _part(self, upload: str, number: int) -> Path:
        return self.objects.folder / _PARTIAL / upload / f"{number:06d}"

    def _parts(self, upload: str, delete: bool = False) -> list[Path]:
        folder = self.objects.folder / _PARTIAL / upload
        if not folder.is_dir():
            raise S3Error(404, "NoSuchUpload")
        found = sorted(folder.iterdir())
        if delete:
            for part in found:
                part.unlink()
            folder.rmdir()
        return found

    def _list(self, bucket: str, query: dict[str, str]) -> str:
        prefix, delimiter = f"{bucket}/{query.get('prefix', '')}", query.get("delimiter", "")
        most = min(_PAGE, int(query.get("max-keys", _PAGE)))
        rows: list[str] = []
        last, found = "", self.objects.after(query.get("continuation-token", ""), prefix)
        name = next(found, None)
        while name is not None and len(rows) < most:
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                folder = name[: end + len(delimiter)]
                last = folder + _LAST
                key = _key(folder, bucket)
                rows.append(f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>")
            else:
                last = name
                etag, size = self.objects.get(name)
                key = _key(name, bucket)
                rows.append(
                    f"<Contents><Key>{key}</Key><ETag>{escape(etag)}</ETag><Size>{size}</Size></Contents>"
                )
            name = _next(found, last if end >= 0 else "")
        more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if name is not None else ""
        return (
            f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>{bucket}</Name>"
            f"<KeyCount>{len(rows)}</KeyCount><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(name is not None).lower()}</IsTruncated>{more}{''.join(rows)}"
            "</ListBucketResult>"
        )


def _xml(kind: str, name: str, value: str) -> str:
    return f"<?xml version='1.0'?><{kind}><{name}>{escape(value)}</{name}></{kind}>"


def _key(name: str, bucket: str) -> str:
    return quote(name.removeprefix(f"{bucket}/"))


def _next(names: Any, skip: str) -> str | None:
    try:
        following: str = names.send(skip) if skip else next(names)
    except StopIteration:
        return None
    return following


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder as S3, with the delay of each request.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, nargs=2, default=(20.0, 60.0))
    chosen = parser.parse_args()
    shortest, longest = (delay / 1000 for delay in chosen.delay_ms)
    server = Server(chosen.folder, (shortest, longest))
    uvicorn.run(server, host="127.0.0.1", port=chosen.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
