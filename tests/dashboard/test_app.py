"""The application over HTTP: access, security headers, and pages while a data source is unavailable."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from laion_etl.core.ids import sample_key
from laion_etl.dashboard.assets import VERSION
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.settings import CoreSettings, Settings
from tests.dashboard.conftest import open_client
from tests.dashboard.world import FIRST_BATCH
from tests.publish.world import CRAWL

PATHS = (
    "/",
    f"/crawl/{CRAWL}",
    f"/dag?dag=crawl_{CRAWL}",
    f"/static/{VERSION}/crawl.js",
    "/api/overview",
    f"/api/crawl/{CRAWL}",
    f"/api/crawl/{CRAWL}/partition/1",
    f"/api/crawl/{CRAWL}/batch/{FIRST_BATCH + 1}",
    f"/api/crawl/{CRAWL}/thousand/0",
    f"/api/crawl/{CRAWL}/samples",
    f"/api/crawl/{CRAWL}/samples/{sample_key(FIRST_BATCH, 0)}.webp",
)


def ask(client: TestClient, path: str) -> dict[str, object]:
    """Request a document until it is ready: the first one is built in the background."""
    for _ in range(100):
        answer = client.get(path)
        if answer.status_code != 202:
            assert answer.status_code == 200, answer.text
            return dict(answer.json())
    pytest.fail(f"{path} was never ready")


@pytest.mark.parametrize("path", PATHS)
def test_strangers_see_nothing(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"user": ""})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})


@pytest.mark.parametrize("path", [path for path in PATHS if CRAWL in path])
def test_a_crawl_is_for_those_who_may_see_it(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"user": "guest"}).status_code == 403
    ask(client, "/api/overview")
    assert client.get("/api/overview", headers={"user": "guest"}).json()["crawls"] == []


@pytest.mark.parametrize("path", PATHS[:6])
def test_nothing_but_our_own_files_is_allowed_on_a_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


def test_addresses_are_checked_and_escaped(client: TestClient) -> None:
    assert client.get("/crawl/..%2f..%2fetc").status_code == 404
    assert client.get("/crawl/a%22b").status_code == 422
    assert client.get("/static/x/crawl.js").status_code == 404
    assert client.get(f"/static/{VERSION}/..%2fapp.py").status_code == 404
    assert client.get("/dag?dag=another").text == client.get("/").text
    page = client.get(f"/crawl/{CRAWL}?run=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert" not in page
    assert 'data-run="&#34;&gt;&lt;script&gt;' in page


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/crawl/a%22b", 422, "its crawl is not valid; open a crawl from the list"),
        ("/crawl/a%22b", 422, "its crawl is not valid; open a crawl from the list"),
        (f"/api/crawl/{CRAWL}/partition/x", 422, "its number is not valid"),
        (f"/api/crawl/{CRAWL}/samples/1.webp", 404, "reload the samples"),
        ("/static/x/crawl.js", 404, "reload it"),
    ],
)
def test_a_refusal_is_a_sentence(client: TestClient, path: str, status: int, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert words in answer.text
    assert "^" not in answer.text  # no regular expression


def test_a_document_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    ask(client, "/api/overview")
    answer = client.get("/api/overview")
    etag = answer.headers["etag"]
    again = client.get("/api/overview", headers={"if-none-match": f"W/{etag}"})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/api/overview", headers={"if-none-match": "other"}).status_code == 200


def test_a_database_without_tables_is_a_new_one(postgres: EmbeddedServer, tmp_path: Path) -> None:
    url = postgres.url(f"test_{uuid4().hex}")
    with open_client(Settings(core=CoreSettings(data_dir=str(tmp_path), database_url=url))) as client:
        assert ask(client, "/api/overview")["problems"] == [{"what": "schema", "message": ""}]


def test_no_data_yet_is_a_page_without_rows(settings: Settings) -> None:
    from laion_etl.database.connection import open_database

    with open_database(settings), open_client(settings) as client:
        assert ask(client, "/api/overview") == {"problems": [], "crawls": []}
        made = ask(client, "/api/crawl/CC-MAIN-2024-38")
        assert made["problems"] == []
        assert made["partitions"] == {"numbers": [], "states": "", "depths": "", "edges": []}
        answer = client.get("/api/crawl/CC-MAIN-2024-38/samples")
        assert (answer.status_code, answer.json()) == (
            503,
            {"problem": "cannot show samples of CC-MAIN-2024-38: no batch is scored yet; score one first"},
        )


def test_without_postgres_the_page_shows_what_the_store_has_without_a_file_for_each_batch(
    crawl_settings: Settings,
) -> None:
    away = replace(
        crawl_settings, core=replace(crawl_settings.core, database_url="postgresql://127.0.0.1:1/laion")
    )
    with open_client(away) as client:
        overview = ask(client, "/api/overview")
        made = ask(client, f"/api/crawl/{CRAWL}")
    (problem,) = made["problems"]  # type: ignore[misc]
    assert problem["what"] == "database"
    assert "cannot connect to Postgres at 127.0.0.1:1/laion" in problem["message"]
    assert made["batches"]["states"] == ""  # type: ignore[index]
    stages = {stage["stage"]: (stage["done"], stage["of"]) for stage in made["status"]["stages"]}  # type: ignore[index]
    assert (stages["load"], stages["download"], stages["score"]) == ((20, 22), (0, 0), (3, 0))
    assert [row["crawl"] for row in overview["crawls"]] == [CRAWL]  # type: ignore[attr-defined,index]


def test_without_the_store_the_page_shows_what_postgres_knows(
    crawl_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    core = CoreSettings(store=str(tmp_path / "file"), database_url=crawl_settings.core.database_url)
    with open_client(replace(crawl_settings, core=core)) as client:
        made = ask(client, f"/api/crawl/{CRAWL}")
    assert made["status"]["queue"]["done"] == 23  # type: ignore[index]
    assert made["partitions"]["states"] == 18 * "b" + "llg"  # type: ignore[index]
