"""The search page of a dataset: a small web server for one user on this machine.

It answers only to its own address, loads no external resources, and shows images from the store. Rows not
tagged as safe are neither found nor shown unless a request asks for them. Texts are untrusted: they are sent
as JSON, and the page inserts them as text.
"""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from laion_etl.core.errors import InputError, LaionEtlError, MissingInputError
from laion_etl.core.quantities import QUANTITIES_JS
from laion_etl.dataset.subsets import subsets
from laion_etl.io.storage import Store
from laion_etl.search.current_index import CurrentIndex
from laion_etl.search.filters import Filters, is_safe
from laion_etl.search.hnsw import Floats
from laion_etl.search.query import Hit, SearchIndex
from laion_etl.search.query_encoder import MEDIA_TYPES, QueryEncoder, stored_image
from laion_etl.search.security_middleware import SecurityMiddleware
from laion_etl.settings import Settings

STATIC = Path(__file__).parent / "static"
_MAX_RESULTS = 240
_MAX_QUERY_IMAGES = 100  # remembered, so that page URLs that contain them keep working
_MAX_CHARS = 1_000
_SHOWN = (
    "TEXT", "URL", "WIDTH", "HEIGHT", "LICENSE", "LANGUAGE", "NSFW", "similarity", "aesthetic", "punsafe",
    "pwatermark", "pviolence", "crawl", "page_url", "domain",
)  # fmt: skip
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class SearchBackend:
    """The index, model and store behind the page."""

    source: CurrentIndex
    encoder: QueryEncoder
    settings: Settings
    store: Store
    _model: threading.Lock = field(default_factory=threading.Lock)
    _images: OrderedDict[str, tuple[Floats, bytes]] = field(default_factory=OrderedDict)

    @property
    def index(self) -> SearchIndex:
        """The index as it is now. Raises like `open_index`, and InputError if it is of another model."""
        index = self.source.get()
        self.encoder.check_index(index)
        return index

    def facts(self) -> dict[str, Any]:
        """Return the facts about the dataset and the filter choices shown on the page."""
        index = self.index
        details = index.stats.details
        return {
            "dataset": index.release.name,
            "version": index.release.version,
            "rows": index.stats.kept,
            "max_results": _MAX_RESULTS,
            "safe": details["tags"].get("UNLIKELY", 0),
            "model": details.get("model", ""),
            "languages": details["languages"],
            "licenses": details["licenses"],
            "subsets": [{"name": s.name, "rule": s.rule} for s in subsets(self.settings.publish)],
            "max_bytes": self.settings.download.max_bytes,
        }

    def by_text(self, text: str, count: int, filters: Filters) -> list[Hit]:
        with self._model:
            vector = self.encoder.text(text)
        return self.index.search(vector, count, filters)

    def by_image(self, image: str, count: int, filters: Filters) -> list[Hit]:
        return self.index.search(self._query_image(image)[0], count, filters)

    def remember(self, data: bytes) -> str:
        """Store an image to search by; return its name for later requests."""
        name = hashlib.sha256(data).hexdigest()[:16]
        with self._model:
            vector, small = self.encoder.image_and_thumbnail(data)
            self._images[name] = (vector, small)
            while len(self._images) > _MAX_QUERY_IMAGES:
                self._images.popitem(last=False)
        return name

    def query_thumbnail(self, name: str) -> bytes:
        return self._query_image(name)[1]

    def stored(self, sample_id: int, *, unsafe: bool) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's image. Raises MissingInputError if it may not be shown."""
        hit = self.index.sample(sample_id)
        if not unsafe and not is_safe(hit.row["NSFW"]):
            raise MissingInputError(
                "cannot show this image: it is not tagged as safe; turn on unsafe results"
            )
        found = stored_image(hit, self.store)
        if found is None:
            raise MissingInputError(
                "cannot show images: LAION_ETL_INDEX_PICTURES was off; turn it on and index again"
            )
        return found

    def _query_image(self, name: str) -> tuple[Floats, bytes]:
        if name not in self._images:
            raise MissingInputError("cannot find the query image: it is no longer stored; upload it again")
        return self._images[name]


def _filters(
    language: Annotated[list[str] | None, Query(max_length=20)] = None,
    min_similarity: Annotated[float | None, Query(ge=-1, le=1)] = None,
    min_aesthetic: Annotated[float | None, Query(ge=-100, le=100)] = None,
    subset: Annotated[str, Query(max_length=100)] = "",
    license: Annotated[str, Query(max_length=300)] = "",
    domain: Annotated[str, Query(max_length=300)] = "",
    unsafe: bool = False,
) -> Filters:
    languages = tuple(language or ())
    return Filters(languages, min_similarity, min_aesthetic, subset, license, domain, unsafe=unsafe)


FilterQuery = Annotated[Filters, Depends(_filters)]
CountQuery = Annotated[int, Query(ge=1, le=_MAX_RESULTS)]


def build_app(backend: SearchBackend) -> FastAPI:
    """Build the application: the page and its API."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(SecurityMiddleware, max_bytes=backend.settings.download.max_bytes)
    app.add_exception_handler(LaionEtlError, _as_json)
    app.add_api_route("/", _static(STATIC / "index.html"))
    for name in ("app.css", "app.js", "results.js", "filters.js", "icon.svg"):
        app.add_api_route(f"/{name}", _static(STATIC / name))
    app.add_api_route(f"/{QUANTITIES_JS.name}", _static(QUANTITIES_JS))
    _add_search(app, backend)
    _add_images(app, backend)
    return app


def _add_search(app: FastAPI, backend: SearchBackend) -> None:
    @app.get("/api/facts")
    def facts() -> dict[str, Any]:
        return backend.facts()

    @app.get("/api/search")
    def search(
        filters: FilterQuery,
        q: Annotated[str, Query(max_length=_MAX_CHARS)] = "",
        image: Annotated[str, Query(max_length=16)] = "",
        like: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
        count: CountQuery = 48,
    ) -> dict[str, Any]:
        if like is not None:
            hits = backend.index.like(like, count, filters)
        elif image:
            hits = backend.by_image(image, count, filters)
        elif q.strip():
            hits = backend.by_text(q, count, filters)
        else:
            hits = backend.index.browse(count, filters)
        return {"results": [_plain(hit) for hit in hits]}

    @app.get("/api/sample/{sample_id}")
    def sample(sample_id: int, unsafe: bool = False) -> dict[str, Any]:
        hit = backend.index.sample(sample_id)
        if not unsafe and not is_safe(hit.row["NSFW"]):
            raise MissingInputError(
                "cannot show this sample: it is not tagged as safe; turn on unsafe results"
            )
        return _plain(hit)


def _add_images(app: FastAPI, backend: SearchBackend) -> None:
    @app.post("/api/image")
    async def remember(request: Request) -> dict[str, str]:
        data = await request.body()  # SecurityMiddleware limits its size
        return {"image": await run_in_threadpool(backend.remember, data)}

    @app.get("/query/{name}")
    def query_image(name: str) -> Response:
        return _image("webp", backend.query_thumbnail(name))

    @app.get("/thumbnail/{sample_id}")
    def thumbnail(sample_id: int, unsafe: bool = False) -> Response:
        small = backend.encoder.thumbnail(*backend.stored(sample_id, unsafe=unsafe))
        if small is None:
            raise InputError("cannot read this image: it is damaged or too large; choose another sample")
        return _image("webp", small)

    @app.get("/image/{sample_id}")
    def image(sample_id: int, unsafe: bool = False) -> Response:
        return _image(*backend.stored(sample_id, unsafe=unsafe))


def _image(ending: str, data: bytes) -> Response:
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(data, media_type=MEDIA_TYPES[ending], headers=headers)


def _static(path: Path) -> Callable[[], FileResponse]:
    def file() -> FileResponse:
        return FileResponse(path)

    return file


def _as_json(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, MissingInputError) else 400
    return JSONResponse({"error": str(error)}, status)


def _plain(hit: Hit) -> dict[str, Any]:
    """Return a result as JSON values; ids as text, because they exceed JavaScript's exact integers."""
    row = {name.lower(): _without_steering(hit.row[name]) for name in _SHOWN}
    return {"id": str(hit.sample_id), "score": hit.score, "safe": is_safe(hit.row["NSFW"]), **row}


def _without_steering(value: object) -> object:
    """Return a value, a text without control characters and those that change the reading direction.

    A caption or URL of a foreign dataset could otherwise read differently from what it is.
    """
    return _STEERING.sub("", value) if isinstance(value, str) else value
