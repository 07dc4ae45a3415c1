"""Commands that search a published dataset: index it, search it, and serve a search page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laion_etl.cli.common import (
    JsonOption,
    NameOption,
    VersionOption,
    console,
    read_range,
    say_json,
    settings_and_store,
)
from laion_etl.cli.console import progress, summary
from laion_etl.cli.extras import Commands, needs
from laion_etl.core.one_line import one_line
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from rich.table import Table

    from laion_etl.io.storage import Store
    from laion_etl.search.published_rows import PublishedVersion
    from laion_etl.search.query import Hit, SearchIndex
    from laion_etl.settings import Settings


_PLAIN_COLUMNS = (
    "SAMPLE_ID", "URL", "TEXT", "WIDTH", "HEIGHT", "LICENSE", "LANGUAGE", "NSFW", "similarity", "aesthetic",
    "crawl", "page_url",
)  # fmt: skip


commands = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Index a published dataset and search its images."
)


@commands.command()
@needs("search")
def index(
    version: VersionOption = "",
    name: NameOption = "",
    range_: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="I/N",
            help="Index only part I of N, such as 1/4, of a dataset that was published in ranges. When all "
            "parts are done, run the command without this option to complete the index.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Index the images of a published dataset, once per version, so that they can be searched."""
    from laion_etl.search.stage import index_dataset, index_range

    settings, store, published = _open(name, version)
    if not published.rows:
        console().print(f"{published.release.folder} has no rows: nothing to index", highlight=False)
        if as_json:
            unit = f"{published.release.name}/{published.release.version}"
            say_json({"stage": "index", "unit": unit, "input": 0, "kept": 0, "dropped": {}})
        return
    if range_:
        with progress(console(), f"index {published.release.version}, {range_}") as report:
            rows = index_range(published, *read_range(range_), settings, store, report)
        console().print(f"range {range_}: {quantity(rows, 'sample')} indexed", highlight=False)
        if as_json:
            say_json({"stage": "index", "unit": published.release.version, "range": range_, "kept": rows})
        return
    with progress(console(), f"index {published.release.version}") as report:
        stats = index_dataset(published, settings, store, report)
    console().print(summary(stats), highlight=False)
    console().print(
        f'try: laion-etl search query --version {published.release.version} "a red car"', highlight=False
    )
    if as_json:
        plain = stats.to_plain()
        say_json({key: plain[key] for key in ("stage", "unit", "input", "kept", "dropped")})


@commands.command()
def embeddings(
    folder: Annotated[str, typer.Argument(help="Where to write: a new folder, or s3://BUCKET/PREFIX.")],
    version: VersionOption = "",
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings and rows of a published dataset as files for autofaiss and clip-retrieval.

    The export is complete when `_stats.json` is there. One that was killed goes on when it is run again.
    """
    from laion_etl.io.storage import open_store
    from laion_etl.search.embeddings import export_embeddings

    _, store, published = _open(name, version)
    target = open_store(folder)
    with progress(console(), f"embeddings {published.release.version}") as report:
        rows = export_embeddings(published, store, target, report).kept
    console().print(f"{target.uri()}: {quantity(rows, 'row')}", highlight=False, markup=False)
    if as_json:
        say_json({"dataset": published.release.name, "version": published.release.version, "rows": rows})


@commands.command("query")
@needs("search")
def query_index(  # noqa: PLR0913, PLR0917 - Typer declares options as parameters
    query: Annotated[str, typer.Argument(help="Text that describes the images.")] = "",
    image: Annotated[Path | None, typer.Option(help="Find images similar to this image file.")] = None,
    like: Annotated[
        int | None, typer.Option(help="Find images similar to the sample with this SAMPLE_ID.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1_000, help="Number of results.")] = 10,
    language: Annotated[
        list[str] | None,
        typer.Option(
            help="Language of the captions, such as en; nolang: none recognised. May be given several times."
        ),
    ] = None,
    min_similarity: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Lowest similarity of image and caption; default: no limit."),
    ] = None,
    min_aesthetic: Annotated[
        float | None,
        typer.Option(min=-100, max=100, help="Lowest aesthetic score, about 1 to 10; default: no limit."),
    ] = None,
    subset: Annotated[
        str, typer.Option(help="Only this subset, such as laion-aesthetic; default: all.")
    ] = "",
    license_: Annotated[
        str,
        typer.Option(
            "--license",
            help="Only this licence: its URL, a type such as by-sa, or 'known' for any.",
        ),
    ] = "",
    domain: Annotated[
        str, typer.Option(help="Only images on hosts of this domain, such as example.org; default: all.")
    ] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Also show results that are not tagged as safe.")
    ] = False,
    version: VersionOption = "",
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Search the images of a published dataset by text, by image, or by one of its samples.

    Example: `laion-etl search query "a red car" --language en --top 5`. Run `laion-etl search index` first.
    """
    from laion_etl.search.filters import Filters

    if sum((bool(query), image is not None, like is not None)) != 1:
        raise typer.BadParameter("expected exactly one of a text, --image and --like")
    settings, store, published = _open(name, version)
    filters = Filters(
        tuple(language or ()), min_similarity, min_aesthetic, subset, license_, domain, unsafe=unsafe
    )
    opened = _opened(published, settings, store)
    if like is not None:
        hits = opened.like(like, top, filters)
    else:
        hits = opened.search(_vector(query, image, opened, settings), top, filters)
    console().print(_table(hits) if hits else "nothing found: no image passes the filters")
    if as_json:
        say_json({"version": opened.stats.unit, "results": [_plain(hit) for hit in hits]})


@commands.command("serve")
@needs("search", "score")
def serve_page(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 picks a free one.")] = 0,
    version: VersionOption = "",
    name: NameOption = "",
) -> None:
    """Serve a page on this machine to search a published dataset by text and image."""
    from laion_etl.search.current_index import CurrentIndex
    from laion_etl.search.serve import serve

    settings, store, published = _open(name, version)
    source = CurrentIndex(published.release.name, version, settings, store)
    source.get()  # before the model is loaded: it may have no index
    serve(source, settings, store, port, console())


def _open(name: str, version: str) -> "tuple[Settings, Store, PublishedVersion]":
    from laion_etl.dataset.versions import Release
    from laion_etl.search.published_rows import find_published

    settings, store = settings_and_store()
    dataset = Release(name or settings.publish.name, version or "any").name  # checks both as folder names
    return settings, store, find_published(dataset, version, store)


def _opened(published: "PublishedVersion", settings: "Settings", store: "Store") -> "SearchIndex":
    from laion_etl.search.query import open_index

    return open_index(published, settings, store)


def _vector(query: str, image: Path | None, opened: "SearchIndex", settings: "Settings") -> Any:
    from laion_etl.score.model import load_model
    from laion_etl.search.query import check_model
    from laion_etl.search.query_encoder import QueryEncoder

    data = _read(image, settings.download.max_bytes) if image else b""
    model = load_model(settings.clip)
    check_model(opened, model.name, model.weights_sha256)
    with QueryEncoder(model, settings) as encoder:
        return encoder.image(data) if image else encoder.text(query)


def _read(path: Path, max_bytes: int) -> bytes:
    from laion_etl.core.errors import InputError

    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise InputError(
            f"cannot read {path}: it has over {quantity(max_bytes, 'byte')}; see LAION_ETL_DOWNLOAD_MAX_BYTES"
        )
    return data


def _table(hits: "list[Hit]") -> "Table":
    """A table of score, caption, address and further columns of each hit; fits 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table("score", "caption, address, sample", show_lines=True)
    for hit in hits:
        row = hit.row
        facts = (
            f"{row['WIDTH']} x {row['HEIGHT']}",
            row["LANGUAGE"],
            "licence unknown" if row["LICENSE"] == "?" else row["LICENSE"],
            *(() if row["NSFW"] == "UNLIKELY" else (f"safety: {row['NSFW'] or 'not checked'}",)),
            f"--like {hit.sample_id}",
        )
        lines = (
            Text(one_line(row["TEXT"])),
            Text(one_line(row["URL"]), "dim"),
            Text(", ".join(facts), "dim"),
        )
        table.add_row(f"{hit.score or 0:.3f}", Text("\n").join(lines))
    return table


def _plain(hit: "Hit") -> dict[str, Any]:
    """The JSON of a hit; its id as text, because it exceeds JavaScript's exact integers."""
    row = {column: hit.row[column] for column in _PLAIN_COLUMNS}
    return {"score": round(hit.score or 0, 6), **row, "SAMPLE_ID": str(hit.sample_id)}
