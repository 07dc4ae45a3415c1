"""The web application: pages, their JSON documents, and static files. It is read-only: GET requests only.

The application that mounts it controls access: `viewer` is a FastAPI dependency of every route, including
static files. Displayed text is untrusted (alt texts, errors that quote servers), so the content security
policy allows only our own scripts, styles and images, and the scripts insert it as text.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse

from laion_etl.core.errors import LaionEtlError
from laion_etl.core.ids import is_sample_key
from laion_etl.dashboard.assets import CONTENT_TYPES, VERSION, asset, page
from laion_etl.dashboard.crawl_page import CrawlPage
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dashboard.overview_page import overview_document
from laion_etl.dashboard.samples import Sheets
from laion_etl.dashboard.snapshots import Snapshot, Snapshots
from laion_etl.dashboard.unit_details import batch_document, partition_document
from laion_etl.dataset.published import PublishedDatasets

MaySee = Callable[[str], bool]  # whether the user may see a crawl
CrawlPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
NumberPath = Annotated[int, Path(ge=0, lt=10**12)]

_PATIENCE_S = 0.7
_SHEET_AGE_S = 900.0
_MAX_CRAWLS = 12
_FROM_LIST = "open a crawl from the list of crawls, or a unit from its crawl's page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True, slots=True)
class AirflowPlace:
    """The Airflow instance that embeds the dashboard, on the same origin; its root path ends in '/'."""

    root: str


@dataclass(slots=True)
class Dashboard:
    """State shared by the routes."""

    sources: Sources
    snapshots: Snapshots = field(default_factory=Snapshots)
    published: PublishedDatasets = field(default_factory=PublishedDatasets)
    sheets: Sheets = field(init=False)
    sheet_snapshots: Snapshots = field(default_factory=lambda: Snapshots(_SHEET_AGE_S))
    _pages: dict[str, CrawlPage] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.sheets = Sheets(self.sources)

    def page(self, crawl: str) -> CrawlPage:
        """Return the cached page of a crawl; the least recently used one is dropped."""
        with self._lock:
            found = self._pages.pop(crawl, None) or CrawlPage(crawl, self.sources, self.published)
            self._pages[crawl] = found
            while len(self._pages) > _MAX_CRAWLS:
                del self._pages[next(iter(self._pages))]
            return found

    def close(self) -> None:
        """Stop background work."""
        self.snapshots.close()
        self.sheet_snapshots.close()
        self.sources.close()


def dashboard_app(
    sources: Sources, viewer: Callable[..., Any], airflow: AirflowPlace | None = None
) -> FastAPI:
    """Build the application. `viewer` returns a MaySee, or raises HTTPException for unknown users."""
    dashboard = Dashboard(sources)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        dashboard.close()

    # FastAPI's documentation pages would load scripts from other sites.
    app = FastAPI(title="laion_etl", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def secured(request: Request, go_on: Callable[..., Any]) -> Response:
        response: Response = await go_on(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(LaionEtlError)
    async def away(_: Request, error: LaionEtlError) -> Response:
        return _json({"problem": str(error)}, 503)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(dict.fromkeys(str(one["loc"][-1]) for one in error.errors()))
        problem = f"cannot read this address: its {names} is not valid; {_FROM_LIST}"
        if "/api/" in request.scope["path"]:
            return _json({"problem": problem}, 422)
        return Response(problem, 422, media_type="text/plain")

    _add_pages(app, viewer, airflow)
    _add_documents(app, viewer, dashboard)
    _add_units(app, viewer, dashboard)
    _add_samples(app, viewer, dashboard)
    return app


def _add_pages(app: FastAPI, viewer: Callable[..., Any], airflow: AirflowPlace | None) -> None:
    def html(request: Request, name: str, **more: str) -> Response:
        base = str(request.scope.get("root_path", "")).rstrip("/")
        return HTMLResponse(page(name, base=base, airflow=airflow.root if airflow else "", **more))

    @app.get("/")
    def overview(request: Request, may_see: Annotated[MaySee, Depends(viewer)]) -> Response:
        del may_see
        return html(request, "overview")

    @app.get("/crawl/{crawl}")
    def crawl_page(
        request: Request, crawl: CrawlPath, may_see: Annotated[MaySee, Depends(viewer)], run: str = ""
    ) -> Response:
        _check(crawl, may_see)
        return html(request, "crawl", crawl=crawl, run=run)

    @app.get("/dag")
    def dag_page(
        request: Request, dag: str, may_see: Annotated[MaySee, Depends(viewer)], run: str = ""
    ) -> Response:
        crawl = dag.removeprefix("crawl_")
        if crawl == dag or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", crawl):
            return html(request, "overview")
        return crawl_page(request, crawl, may_see, run)

    @app.get("/static/{version}/{name}", dependencies=[Depends(viewer)])
    def static(version: str, name: str) -> Response:
        found = asset(name) if version == VERSION else None
        if found is None:
            raise HTTPException(404, "this page is from another version of the dashboard; reload it")
        kept = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(found, media_type=CONTENT_TYPES[name.rpartition(".")[2]], headers=kept)


def _add_documents(app: FastAPI, viewer: Callable[..., Any], dashboard: Dashboard) -> None:
    @app.get("/api/overview")
    def overview_json(request: Request, may_see: Annotated[MaySee, Depends(viewer)]) -> Response:
        snapshot = dashboard.snapshots.get(
            "overview", lambda: overview_document(dashboard.sources, dashboard.published), _PATIENCE_S
        )
        if snapshot is None:
            return _json({"reading": {}}, 202)
        document = json.loads(snapshot.body)
        document["crawls"] = [row for row in document["crawls"] if may_see(row["crawl"])]
        return _answer(request, snapshot, json.dumps(document).encode())

    @app.get("/api/crawl/{crawl}")
    def crawl_json(
        request: Request, crawl: CrawlPath, may_see: Annotated[MaySee, Depends(viewer)]
    ) -> Response:
        _check(crawl, may_see)
        made = dashboard.page(crawl)
        snapshot = dashboard.snapshots.get(f"crawl/{crawl}", made.document, _PATIENCE_S)
        if snapshot is None:
            return _json({"reading": made.progress}, 202)
        return _answer(request, snapshot, snapshot.body)


def _add_units(app: FastAPI, viewer: Callable[..., Any], dashboard: Dashboard) -> None:
    @app.get("/api/crawl/{crawl}/thousand/{number}")
    def thousand_json(
        crawl: CrawlPath, number: NumberPath, may_see: Annotated[MaySee, Depends(viewer)]
    ) -> Response:
        _check(crawl, may_see)
        return _json(dashboard.page(crawl).thousand(number))

    @app.get("/api/crawl/{crawl}/partition/{number}")
    def partition_json(
        crawl: CrawlPath, number: NumberPath, may_see: Annotated[MaySee, Depends(viewer)]
    ) -> Response:
        _check(crawl, may_see)
        return _json(partition_document(crawl, number, dashboard.sources))

    @app.get("/api/crawl/{crawl}/batch/{number}")
    def batch_json(
        crawl: CrawlPath, number: NumberPath, may_see: Annotated[MaySee, Depends(viewer)]
    ) -> Response:
        _check(crawl, may_see)
        return _json(batch_document(crawl, number, dashboard.sources))


def _add_samples(app: FastAPI, viewer: Callable[..., Any], dashboard: Dashboard) -> None:
    @app.get("/api/crawl/{crawl}/samples")
    def samples_json(
        request: Request, crawl: CrawlPath, may_see: Annotated[MaySee, Depends(viewer)]
    ) -> Response:
        _check(crawl, may_see)
        snapshot = dashboard.sheet_snapshots.get(crawl, lambda: dashboard.sheets.document(crawl), _PATIENCE_S)
        if snapshot is None:
            return _json({"reading": {}}, 202)
        return _answer(request, snapshot, snapshot.body)

    @app.get("/api/crawl/{crawl}/samples/{name}")
    def sample_image(crawl: CrawlPath, name: str, may_see: Annotated[MaySee, Depends(viewer)]) -> Response:
        _check(crawl, may_see)
        key, _, ending = name.partition(".")
        found = dashboard.sheets.image(crawl, key) if is_sample_key(key) and ending == "webp" else None
        if found is None:
            raise HTTPException(404, "this sample is no longer shown; reload the samples")
        return Response(found, media_type="image/webp", headers={"Cache-Control": "private, max-age=900"})


def _check(crawl: str, may_see: MaySee) -> None:
    if not may_see(crawl):
        raise HTTPException(403, f"you may not read the DAG of {crawl}; ask an administrator of Airflow")


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document, default=str), status, media_type="application/json")


def _answer(request: Request, snapshot: Snapshot, body: bytes) -> Response:
    """Return the document, or 304 if the client has it; a header gives the age of its data."""
    headers = {"ETag": snapshot.etag, "X-Age": f"{snapshot.age_s:.0f}"}
    # A compressing proxy turns the ETag into a weak one.
    if request.headers.get("if-none-match", "").removeprefix("W/") == snapshot.etag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
