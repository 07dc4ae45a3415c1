"""The HTTP side: paths, tokens, bodies, streams in chunks, and the ordered faults."""

import hmac
import json
import re
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.kubernetes.answers import ApiError, Json, bad_request
from tests.kubernetes.api import Api, is_true
from tests.kubernetes.faults import Cut, Faults, Held, Instead, Refused

_PATH = re.compile(
    r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>pods|events)(?:/(?P<name>[^/]+)(?:/(?P<part>\w+))?)?"
)
_MAX_BODY = 1024 * 1024
_MAX_HOLD_S = 60.0
_MERGES = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, in the words of Kubernetes."""

    verb: str
    resource: str
    namespace: str
    name: str | None
    query: dict[str, str]
    body: Json


class ApiServer(ThreadingHTTPServer):
    """On a free port of loopback; requests without the token are refused, because pods run commands."""

    daemon_threads = True

    def __init__(self, api: Api, faults: Faults, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api, self.faults, self.token = api, faults, token
        self.asked: list[Asked] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or give up leave no message in the test's output."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""

    def _answer(self) -> None:
        try:
            body = self._body()
            self._authenticate()
            asked = self._asked(body)
            self.server.asked.append(asked)
            instead = self.server.faults.of_request(asked.verb, asked.resource, self._labels(asked))
            if isinstance(instead, Refused):
                raise instead.error
            self._dispatch(asked, instead)
        except ApiError as error:
            self._send(error.code, error.status(), error.retry_after_s)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client went away, as a watch may at any time

    def _body(self) -> Json:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY:
            self.close_connection = True
            raise ApiError(413, "RequestEntityTooLarge", "Request entity too large: limit is 1048576")
        raw = self.rfile.read(length)
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
        if not isinstance(body, dict):
            raise ApiError(415, "UnsupportedMediaType", "the fake cluster takes no JSON patches")
        return body

    def _authenticate(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            raise ApiError(401, "Unauthorized", "Unauthorized")

    def _asked(self, body: Json) -> Asked:
        target = urlsplit(self.path)
        match = _PATH.fullmatch(target.path)
        if match is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        query = dict(parse_qsl(target.query))
        verb, part = _VERBS[self.command], match["part"]
        if verb == "get" and match["name"] is None:
            verb = "watch" if is_true(query, "watch") else "list"
        resource = match["resource"] + (f"/{part}" if part else "")
        return Asked(verb, resource, match["namespace"], match["name"], query, body)

    def _labels(self, asked: Asked) -> dict[str, str]:
        """Of the pod that a request is about."""
        metadata = asked.body.get("metadata") if asked.verb == "create" else None
        if asked.name is not None and asked.resource.startswith("pods"):
            try:
                metadata = self.server.api.read("pods", asked.namespace, asked.name)["metadata"]
            except ApiError:
                return {}
        return (metadata or {}).get("labels") or {}

    def _dispatch(self, asked: Asked, instead: Instead | None) -> None:
        api, at = self.server.api, (asked.namespace, asked.name or "")
        if asked.verb == "watch":
            found = (
                json.dumps(change).encode() + b"\n"
                for change in api.watch(asked.resource, at[0], asked.query)
            )
            self._stream("application/json", found, instead)
            return
        if (asked.verb, asked.resource) == ("get", "pods/log"):
            self._stream("text/plain", api.log(*at, asked.query), instead)
            return
        if isinstance(instead, Cut):
            self._hang_up()
            return
        answers: dict[tuple[str, str], Callable[[], Json]] = {
            ("create", "pods"): lambda: api.create_pod(at[0], asked.body),
            ("get", "pods"): lambda: api.read("pods", *at),
            ("list", asked.resource): lambda: api.selected(asked.resource, at[0], asked.query),
            ("patch", "pods"): lambda: api.patch_pod(*at, self._merge_only(asked.body)),
            ("delete", "pods"): lambda: api.delete_pod(*at, asked.body, asked.query),
        }
        answer = answers.get((asked.verb, asked.resource))
        if answer is None:
            message = f'{asked.resource} "{asked.name}" is forbidden: may not {asked.verb} {asked.resource}'
            raise ApiError(403, "Forbidden", message)
        body = answer()
        if isinstance(instead, Held):
            instead.until.wait(_MAX_HOLD_S)
        self._send(201 if asked.verb == "create" else 200, body)

    def _merge_only(self, body: Json) -> Json:
        if self.headers.get("Content-Type") not in _MERGES:
            raise ApiError(415, "UnsupportedMediaType", f"only {' and '.join(sorted(_MERGES))}")
        return body

    def _send(self, code: int, body: Json, retry_after_s: int | None = None) -> None:
        written = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(written)))
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.end_headers()
        self.wfile.write(written)

    def _stream(self, kind: str, lines: Iterable[bytes], instead: Instead | None) -> None:
        cut = instead if isinstance(instead, Cut) else None
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if cut is not None and cut.after_lines == 0:
            self._hang_up()
            return
        for number, line in enumerate(lines, 1):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if cut is not None and number == cut.after_lines:
                self._hang_up()
                return
        self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
