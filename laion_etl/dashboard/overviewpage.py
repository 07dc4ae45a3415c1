"""The document behind the overview: a row for every dump that Postgres or the store knows."""

from typing import Any

from laion_etl.dashboard.problems import Problem, problem
from laion_etl.dashboard.published import Published
from laion_etl.dashboard.sources import Sources
from laion_etl.errors import LaionEtlError
from laion_etl.status import crawls_to_plain

_FOLDERS = ("pairs", "load", "shards", "scored")


def overview_document(sources: Sources, published_in: Published) -> dict[str, Any]:
    """Plain JSON values; what is away is named in `problems`."""
    problems: list[Problem] = []
    rows: dict[str, dict[str, Any]] = {}
    try:
        with sources.database() as database:
            rows = {row["crawl"]: row for row in crawls_to_plain(database)}
    except LaionEtlError as error:
        problems.append(problem("database", error))
    folders: dict[str, set[str]] = {}
    published: dict[str, str] = {}
    try:
        store = sources.store()
        folders = {folder: set(store.folders(folder)) for folder in _FOLDERS}
        published = published_in.crawls(store)
    except LaionEtlError as error:
        problems.append(problem("store", error))
    crawls = set(rows).union(published, *folders.values())
    return {
        "problems": problems,
        "crawls": [
            _row(crawl, rows.get(crawl), {f for f, names in folders.items() if crawl in names}, published)
            for crawl in sorted(crawls, reverse=True)
        ],
    }


def _row(
    crawl: str, known: dict[str, Any] | None, folders: set[str], published: dict[str, str]
) -> dict[str, Any]:
    load = known["load"] if known else None
    queue = known["queue"] if known else None
    return {
        "crawl": crawl,
        "state": "published" if crawl in published else _state(load, queue, folders),
        "dataset": published.get(crawl, ""),
        "load": load,
        "queue": queue,
    }


def _state(load: dict[str, Any] | None, queue: dict[str, Any] | None, folders: set[str]) -> str:
    """The furthest stage that the dump has come to."""
    batches = queue["batches"] if queue else 0
    if batches and queue is not None:
        if queue["done"] + queue["failed"] < batches:
            return "downloading" if queue["done"] or queue["leased"] else "planned"
        return "scoring" if "scored" in folders else "downloaded"
    if load and load["partitions"]:
        return "loading"
    furthest = {"scored": "scoring", "shards": "downloading", "load": "loading", "pairs": "parsing"}
    return next((state for folder, state in furthest.items() if folder in folders), "started")
