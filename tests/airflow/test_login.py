"""Who gets into the demo's Airflow: only who knows its password, and only at its own address."""

import json
import os
import stat
from pathlib import Path

import pytest
import urllib3
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from laion_etl.demo.hosts import HostCheck, loopback_hosts
from laion_etl.demo.login import new_login
from tests.airflow.shared import SharedAirflow


@pytest.fixture
def client() -> TestClient:
    """Of a page behind the check of a server on port 8080."""
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("in"))])
    return TestClient(HostCheck(app, loopback_hosts(8080)))


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080"])
def test_a_server_answers_at_its_own_addresses(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).text == "in"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1",
        "127.0.0.1:8081",
        "127.0.0.1.evil.example:8080",
        "127.0.0.1:8080.evil.example",
        "127.0.0.1:8080@evil.example",
        "evil.example, 127.0.0.1:8080",
        "[::1]:8080",
        "0.0.0.0:8080",
        "",
    ],
)
def test_a_request_for_another_host_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert (answer.status_code, "127.0.0.1:8080" in answer.text) == (400, True)


def test_two_host_headers_are_refused(client: TestClient) -> None:
    assert client.get("/", headers=[("Host", "127.0.0.1:8080"), ("Host", "evil.example")]).status_code == 400


def test_only_its_user_can_read_a_login(tmp_path: Path) -> None:
    before = os.umask(0)  # the mode must not depend on it
    try:
        login = new_login(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert json.loads(login.file.read_text()) == {login.user: login.password}
    assert len(login.password) >= 20
    assert login.password not in repr(login)


def test_a_login_is_never_written_where_something_lies(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "login.json").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        new_login(tmp_path)
    assert not elsewhere.exists()


def test_every_login_has_a_password_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert new_login(tmp_path / "one").password != new_login(tmp_path / "two").password


def asked(shared: SharedAirflow, method: str, path: str, **request: object) -> urllib3.BaseHTTPResponse:
    return urllib3.request(
        method, shared.api.url + path, redirect=False, retries=False, timeout=60, **request
    )


@pytest.mark.airflow
def test_there_is_no_token_without_the_password(shared_airflow: SharedAirflow) -> None:
    user = shared_airflow.api.login.user
    for answer in (
        asked(shared_airflow, "GET", "/auth/token"),
        asked(shared_airflow, "GET", "/auth/token/login"),
        asked(shared_airflow, "POST", "/auth/token", json={}),
        asked(shared_airflow, "POST", "/auth/token", json={"username": user, "password": ""}),
        asked(shared_airflow, "POST", "/auth/token", json={"username": user, "password": "admin"}),
        asked(shared_airflow, "POST", "/auth/token/cli", json={"username": user, "password": "admin"}),
    ):
        assert answer.status in (400, 401, 403, 422)
        assert b"access_token" not in answer.data
        assert "Set-Cookie" not in answer.headers
    for path in ("/api/v2/dags", "/api/v2/connections", "/laion/"):
        assert asked(shared_airflow, "GET", path).status == 401


@pytest.mark.airflow
@pytest.mark.parametrize("path", ["/auth/token", "/api/v2/dags", "/execution/health", "/laion/", "/"])
def test_airflow_answers_at_its_own_address_only(shared_airflow: SharedAirflow, path: str) -> None:
    """With the right password, too."""
    login = shared_airflow.api.login
    user = {"username": login.user, "password": login.password}
    method, request = ("POST", {"json": user}) if path == "/auth/token" else ("GET", {})
    port = shared_airflow.api.url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}"):
        assert asked(shared_airflow, method, path, headers={"Host": host}, **request).status == 400
    assert asked(shared_airflow, method, path, **request).status != 400
