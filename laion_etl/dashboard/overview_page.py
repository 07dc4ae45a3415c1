"""The document behind the overview: a row for every crawl in Postgres or the store.

`stage` is the furthest stage reached; `state` is the same, or `failed` if a unit has an unresolved failure.
"""

from typing import Any

from laion_etl.alerts.unresolved import FOLDER as UNRESOLVED
from laion_etl.alerts.unresolved import failed_crawls
from laion_etl.core.errors import LaionEtlError
from laion_etl.crawl import known_crawls
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dashboard.errors import Problem, problem
from laion_etl.dataset.published import PublishedDatasets
from laion_etl.report.crawl_status import crawls_to_plain

_FOLDERS = ("pairs", "load", "shards", "scored")


def overview_document(sources: Sources, published_in: PublishedDatasets) -> dict[str, Any]:
    """Return plain JSON values; unavailable sources are listed in `problems`."""
    problems: list[Problem] = []
    rows: dict[str, dict[str, Any]] = {}
    try:
        with sources.database() as database:
            rows = {row["crawl"]: row for row in crawls_to_plain(database)}
    except LaionEtlError as error:
        problems.append(problem("database", error))
    folders: dict[str, set[str]] = {}
    published: dict[str, str] = {}
    failed: set[str] = set()
    try:
        store = sources.store()
        folders = {folder: set(store.folders(folder)) for folder in _FOLDERS}
        published = published_in.crawls(store)
        failed = failed_crawls(store.list(UNRESOLVED))
    except LaionEtlError as error:
        problems.append(problem("store", error))
    crawls = set(rows).union(published, *folders.values())
    crawls |= failed & _known(sources, problems)  # alerts of other DAGs are not about a crawl
    return {
        "problems": problems,
        "crawls": [
            _row(crawl, rows.get(crawl), {f for f, names in folders.items() if crawl in names}, published)
            | ({"state": "failed"} if crawl in failed else {})
            for crawl in sorted(crawls, reverse=True)
        ],
    }


def _known(sources: Sources, problems: list[Problem]) -> set[str]:
    """Return the known crawls: one that failed at its start has no data yet."""
    try:
        return {crawl.id for crawl in known_crawls(sources.load())}
    except LaionEtlError as error:
        problems.append(problem("settings", error))
        return set()


def _row(
    crawl: str, known: dict[str, Any] | None, folders: set[str], published: dict[str, str]
) -> dict[str, Any]:
    load = known["load"] if known else None
    queue = known["queue"] if known else None
    stage = "published" if crawl in published else _state(load, queue, folders)
    return {
        "crawl": crawl,
        "state": stage,
        "stage": stage,
        "dataset": published.get(crawl, ""),
        "load": load,
        "queue": queue,
    }


def _state(load: dict[str, Any] | None, queue: dict[str, Any] | None, folders: set[str]) -> str:
    """Return the furthest stage that the crawl has reached."""
    batches = queue["batches"] if queue else 0
    if batches and queue is not None:
        if queue["done"] + queue["failed"] < batches:
            return "downloading" if queue["done"] or queue["leased"] else "planned"
        scoring = queue["scored"] or queue["scoring"] or "scored" in folders
        return "scoring" if scoring else "downloaded"
    if load and load["partitions"]:
        return "loading"
    furthest = {"scored": "scoring", "shards": "downloading", "load": "loading", "pairs": "parsing"}
    return next((state for folder, state in furthest.items() if folder in folders), "started")
