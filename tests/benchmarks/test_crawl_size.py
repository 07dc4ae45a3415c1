"""The arithmetic from two sizes to a whole crawl, and the benchmark's S3 server by the rules of S3."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import crawl_size_report as report
from benchmarks.disk_s3 import S3Error, Server

METRICS = (
    "processes", "seconds", "process_s", "longest_s", "cpu_s", "rss_bytes", "requests", "s3_in_bytes",
    "s3_out_bytes", "pg_cpu_s", "pg_written", "pg_read", "pg_commits", "pg_wal_bytes", "pg_grown_bytes",
)  # fmt: skip


def run_of(share: float, thin: int = 1, **parts: dict[str, float]) -> dict[str, Any]:
    """A measured size whose only stage is plan."""
    costs = {name: dict.fromkeys(METRICS, 0) | costs for name, costs in parts.items()}
    return {"size": {"share": share, "thin": thin}, "parts": {"plan": costs}, "left_out": []}


def of_sizes(*runs: dict[str, Any]) -> dict[str, Any]:
    """A document with these sizes."""
    return {"sizes": {"runs": list(runs)}}


def test_a_whole_crawl_has_the_fixed_cost_once_and_the_cost_per_unit_for_all() -> None:
    document = of_sizes(run_of(0.001, whole={"cpu_s": 3.0}), run_of(0.01, whole={"cpu_s": 12.0}))

    assert report.full(document, "plan", "cpu_s") == pytest.approx(2 + 1000)
    assert report.ratio(document, "plan", "cpu_s") == pytest.approx(0.4)


def test_a_cost_that_grows_with_the_square_of_the_size_is_marked() -> None:
    document = of_sizes(run_of(0.001, whole={"cpu_s": 2.0}), run_of(0.01, whole={"cpu_s": 200.0}))

    assert report.ratio(document, "plan", "cpu_s") == pytest.approx(10)
    assert "10.00 !" in report.paper_rows(document)[0]


def test_thin_sizes_get_the_cost_of_the_rows_that_they_lack() -> None:
    rows, units = 5_000, 2_000  # CPU seconds of a whole crawl
    document = of_sizes(
        run_of(0.001, whole={"cpu_s": 0.001 * (rows + units)}),
        run_of(0.001, 10, whole={"cpu_s": 0.001 * (rows / 10 + units)}),
        run_of(0.01, 10, whole={"cpu_s": 0.01 * (rows / 10 + units)}),
    )

    assert report.full(document, "plan", "cpu_s") == pytest.approx(rows + units)


def test_divided_parts_take_the_pods_or_the_cores_of_the_database() -> None:
    def document(pg_cpu_s: float) -> dict[str, Any]:
        sizes = (
            run_of(
                share,
                prepare={"seconds": 3.0},
                ranges={"process_s": 16e3 * share, "pg_cpu_s": pg_cpu_s * share},
            )
            for share in (0.001, 0.01)
        )
        return of_sizes(*sizes)

    assert report.whole_hours(document(0), "plan") == pytest.approx((3 / 3600, 1000 / 3600, 1003 / 3600))
    assert report.whole_hours(document(64e3), "plan")[1] == pytest.approx(2000 / 3600)


def answered(server: Server, method: str, path: str, body: bytes = b"", **more: Any) -> tuple[int, bytes]:
    """Status and body of a request."""
    status, _, data = server._answered(method, path, more.get("query", {}), more.get("headers", {}), body)
    return status, data


def test_pages_of_a_list_have_every_name_once_and_folders_as_prefixes(tmp_path: Path) -> None:
    server = Server(tmp_path, (0, 0))
    for name in ("a/1", "a/2", "b", "c/x/1", "c2"):
        assert answered(server, "PUT", f"bucket/{name}", b"data")[0] == 200

    found, token = [], ""
    while True:
        query = {"max-keys": "2"} | ({"continuation-token": token} if token else {})
        text = answered(server, "GET", "bucket", query=query)[1].decode()
        found += [part.split("</Key>")[0] for part in text.split("<Key>")[1:]]
        if "<NextContinuationToken>" not in text:
            break
        token = text.split("<NextContinuationToken>")[1].split("<")[0]
    folders = answered(server, "GET", "bucket", query={"delimiter": "/", "prefix": ""})[1].decode()

    assert found == ["a/1", "a/2", "b", "c/x/1", "c2"]
    assert [part.split("</Prefix>")[0] for part in folders.split("<Prefix>")[1:]] == ["a/", "c/"]


def test_a_conditional_write_fails_unless_the_object_is_the_one_that_was_read(tmp_path: Path) -> None:
    server = Server(tmp_path, (0, 0))
    etag = server.objects.put("bucket/name", [b"first"], {"if-none-match": "*"})

    with pytest.raises(S3Error):
        server.objects.put("bucket/name", [b"second"], {"if-none-match": "*"})
    again = server.objects.put("bucket/name", [b"second"], {"if-match": etag})

    assert answered(server, "PUT", "bucket/name", b"third", headers={"if-match": etag})[0] == 412
    assert again != etag
    assert answered(server, "GET", "bucket/name", headers={"range": "bytes=1-3"}) == (206, b"eco")


def test_files_that_others_write_are_seen_after_a_scan(tmp_path: Path) -> None:
    server = Server(tmp_path, (0, 0))
    (tmp_path / "bucket" / "folder").mkdir(parents=True)
    (tmp_path / "bucket" / "folder" / "name").write_bytes(b"data")

    assert answered(server, "GET", "bucket/folder/name")[0] == 404
    server.objects.scan()
    assert answered(server, "GET", "bucket/folder/name") == (200, b"data")
