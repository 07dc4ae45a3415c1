"""A dataset repository of the Hugging Face Hub on loopback: the part of its HTTP API that a push uses.

It checks what the Hub checks: the token, the head of the card, the SHA-256 of large files, and that a commit
names only large files that were uploaded.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_testing"  # noqa: S105 - of the fake
SIZES = re.compile(r"n<1K|n>1T|1+0{0,2}[KMB]?<n<10*[KMBT]")


@dataclass
class FakeHub:
    """What was pushed. `failing_commits`: the numbers of those that are answered by 503, counted from 1."""

    url: str = ""
    private: bool | None = None  # None: there is no repository
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    uploads: Counter[str] = field(default_factory=Counter)  # by SHA-256
    commits: list[list[str]] = field(default_factory=list)
    failing_commits: set[int] = field(default_factory=set)
    tried_commits: int = 0


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""

    def do_GET(self) -> None:
        if self._allowed() and re.match(r"/api/datasets/me/laion/tree/main\?", self.path):
            if self.hub.private is None:
                self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            else:
                self._answer([self._listed(path, data) for path, data in self.hub.files.items()])

    def do_PUT(self) -> None:
        oid, data = self.path.rpartition("/")[2], self._body()
        right = hashlib.sha256(data).hexdigest() == oid
        if right:
            self.hub.large[oid] = data
            self.hub.uploads[oid] += 1
        self._answer({}, 200 if right else 400)

    def do_POST(self) -> None:
        body = self._body()
        if not self._allowed():
            return
        handlers = {
            "/api/repos/create": self._create,
            "/api/validate-yaml": self._validate,
            "/api/datasets/me/laion/preupload/main": self._preupload,
            "/datasets/me/laion.git/info/lfs/objects/batch": self._batch,
            "/api/datasets/me/laion/commit/main": self._commit,
        }
        handlers[self.path](body)

    def _create(self, body: bytes) -> None:
        asked, new = json.loads(body), self.hub.private is None
        assert (asked["organization"], asked["name"], asked["type"]) == ("me", "laion", "dataset")
        if new:
            self.hub.private = asked.get("visibility") == "private" or asked.get("private") is True
        self._answer({"url": f"{self.hub.url}/datasets/me/laion"}, 200 if new else 409)

    def _validate(self, body: bytes) -> None:
        from huggingface_hub import DatasetCard

        head = DatasetCard(json.loads(body)["content"]).data.to_dict()
        wrong = [f"language {code}" for code in head["language"] if not re.fullmatch(r"[a-z]{2,3}", code)]
        wrong += [f"size {size}" for size in head["size_categories"] if not SIZES.fullmatch(size)]
        if head["license"] != "other" or not head["license_name"] or head["license_link"] != "LICENSE.md":
            wrong.append("license")
        self._answer({"errors": [{"message": one} for one in wrong], "warnings": []}, 400 if wrong else 200)

    def _preupload(self, body: bytes) -> None:
        asked = json.loads(body)["files"]
        modes = {
            file["path"]: "lfs" if file["path"].endswith((".parquet", ".pq")) else "regular" for file in asked
        }
        self._answer(
            {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}
        )

    def _batch(self, body: bytes) -> None:
        objects = json.loads(body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.large:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/large/{one['oid']}"}}
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, body: bytes) -> None:
        self.hub.tried_commits += 1
        if self.hub.tried_commits in self.hub.failing_commits:
            self._answer({"error": "busy"}, 503)
            return
        paths = []
        for line in map(json.loads, body.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "header":
                continue
            paths.append(value["path"])
            if kind == "lfsFile":
                self.hub.files[value["path"]] = self.hub.large[value["oid"]]
            elif kind == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert kind == "deletedFile"
                del self.hub.files[value["path"]]
        self.hub.commits.append(paths)
        self._answer({"commitUrl": f"{self.hub.url}/datasets/me/laion/commit/main", "commitOid": "1" * 40})

    def _listed(self, path: str, data: bytes) -> dict[str, Any]:
        oid = hashlib.sha256(data).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        listed = {"type": "file", "path": path, "size": len(data), "oid": blob}
        return listed | (
            {"lfs": {"oid": oid, "size": len(data), "pointerSize": 130}} if oid in self.hub.large else {}
        )

    def _allowed(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self._answer({"error": "Invalid username or password."}, 401)
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
