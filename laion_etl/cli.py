"""The command line: one command per stage, and a few that run or show them all.

With `--json` the last line on stdout is one JSON object; this is what Airflow's tasks read. With
`laion-etl --result URI COMMAND ... --json` it is written there too, for those who can't read a pod's stdout.
"""

import json
import logging
import re
import signal
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from laion_etl import __version__
from laion_etl.cli_dataset import diff, remove, verify
from laion_etl.cli_eval import calibrate, evaluation
from laion_etl.cli_explore import add_commands
from laion_etl.console import progress, summary
from laion_etl.crawl import (
    Partition,
    discover_crawls,
    known_crawls,
    parse_selection,
    partitions,
    read_numbers,
    register_crawls,
)
from laion_etl.errors import InputError, SettingsError, Stopped
from laion_etl.metrics import StageMetrics
from laion_etl.records import plan_stats_name
from laion_etl.settings import Settings, load_settings
from laion_etl.stats import StageStats
from laion_etl.storage import Store, open_store


class Commands(TyperGroup):
    """Ctrl-C and SIGTERM are an expected end, not Typer's silent abort."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped("stopped; run the same command again to go on") from error


app = typer.Typer(
    cls=Commands,
    help="Rebuilds a LAION-5B style image-text dataset from Common Crawl.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(evaluation, name="eval")
app.command()(calibrate)
app.command()(verify)
app.command()(diff)
app.command()(remove)
console = Console(soft_wrap=True)


def _name(name: str) -> str:
    """Names become folders of the store and may not lead out of it."""
    if name and not _NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is no name: letters, digits, '.', '_' and '-' only")
    return name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESULT: ContextVar[str] = ContextVar("result", default="")  # where --result wants it
CrawlOption = Annotated[str, typer.Option(callback=_name, help="Crawl id, for example CC-MAIN-2024-38.")]
PartitionOption = Annotated[int, typer.Option(min=0, help="Partition number.")]
SelectionOption = Annotated[
    str, typer.Option("--wat-files", metavar="A:B", help="Only WAT files A to B-1 of wat.paths.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON line on stdout.")]


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"laion-etl {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    result: Annotated[
        str, typer.Option(metavar="URI", help="File (path or s3://) that gets the JSON of --json too.")
    ] = "",
) -> None:
    del version  # handled by its callback
    _RESULT.set(result)


@app.command()
def crawls(
    refresh: Annotated[bool, typer.Option(help="Ask the crawl source instead of the known list.")] = False,
    register: Annotated[bool, typer.Option(help="With --refresh: remember new ones; they get DAGs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Known crawl dumps, newest first."""
    settings = load_settings()
    found = discover_crawls(settings) if refresh else known_crawls(settings)
    if refresh and register:
        for crawl in register_crawls(found, settings):
            console.print(f"new: {crawl.id} ({crawl.name})", highlight=False)
    if as_json:
        _json({"crawls": [{"id": crawl.id, "released": crawl.released.isoformat()} for crawl in found]})
        return
    table = Table("crawl", "name", "released")
    for crawl in found:
        table.add_row(crawl.id, crawl.name, crawl.released.isoformat())
    console.print(table)


@app.command("estimate")
def estimate_crawl(crawl: CrawlOption, wat_files: SelectionOption = "", as_json: JsonOption = False) -> None:
    """What WAT files will come to, by those that are in the store already: links, bytes, hours, cost."""
    from laion_etl.estimate import estimate, in_pods

    settings, store = _open()
    files = sum(len(partition.wat_files) for partition in _partitions(crawl, wat_files, settings))
    found = estimate(crawl, files, store)
    table = Table("what", "how much", title=f"{crawl}: {files:,} WAT files, by {found.by_wat_files:,} of "
                  f"{found.by_crawl}")  # fmt: skip
    plain = found.to_plain() | in_pods(found, settings.kubernetes)
    for name, value in plain.items():
        if isinstance(value, (int, float)) and not name.endswith("wat_files"):
            shown = f"{value / 1e9:,.2f} GB" if name.endswith("_bytes") else f"{value:,}"
            table.add_row(name.removesuffix("_bytes").replace("_", " "), shown)
    console.print(table)
    if as_json:
        _json(plain)


@app.command()
def discover(crawl: CrawlOption, wat_files: SelectionOption = "", as_json: JsonOption = False) -> None:
    """The partitions of a crawl: the units that parse and load work on."""
    settings, _ = _open()
    found = _partitions(crawl, wat_files, settings)
    files = sum(len(partition.wat_files) for partition in found)
    console.print(f"{crawl}: {files:,} WAT files in {len(found):,} partitions", highlight=False)
    if as_json:
        _json({"crawl": crawl, "partitions": [partition.number for partition in found]})


@app.command()
def parse(
    crawl: CrawlOption,
    partition: PartitionOption,
    wat: Annotated[list[str] | None, typer.Argument(help="WAT files; left out: the crawl's own.")] = None,
    wat_files: SelectionOption = "",
    jobs: Annotated[
        int | None, typer.Option(min=0, help="Processes to parse with; 0: one per core. Default: settings.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One partition: WAT files (path, s3://, https://) -> pairs parquet."""
    from laion_etl.parse.stage import parse_partition

    settings, store = _open()
    if jobs is not None:
        settings = replace(settings, parse=replace(settings.parse, jobs=jobs))
    files = (
        list(enumerate(wat)) if wat else _partition(crawl, partition, wat_files, settings).indexed_wat_files
    )
    with progress(console, f"parse partition {partition}") as report:
        stats = parse_partition(crawl, partition, files, settings, store, report)
    _done(stats, as_json)


@app.command()
def load(crawl: CrawlOption, partition: PartitionOption, as_json: JsonOption = False) -> None:
    """Pairs parquet of a partition -> Postgres, deduplicated."""
    from laion_etl.database.connect import open_database
    from laion_etl.database.load import load_partition

    settings, store = _open()
    with open_database(settings) as database:
        _done(load_partition(crawl, partition, settings, store, database), as_json)


@app.command()
def plan(crawl: CrawlOption, as_json: JsonOption = False) -> None:
    """Cut what is new into batches."""
    from laion_etl.database.connect import open_database
    from laion_etl.database.plan import plan_batches

    settings, store = _open()
    with open_database(settings) as database:
        stats = plan_batches(crawl, settings, store, database)
    _done(stats, as_json, batches=stats.details["batches"])


@app.command()
def download(
    crawl: CrawlOption,
    batch: Annotated[int | None, typer.Option(min=0, help="This batch only, whatever its state.")] = None,
    as_json: JsonOption = False,
) -> None:
    """One batch, or claim batches under a lease until none is left."""
    from laion_etl.database.connect import open_database
    from laion_etl.download.metrics import Metrics
    from laion_etl.download.worker import Stop, Worker, open_queue

    settings, store = _open()
    with open_database(settings) as database, progress(console, "download") as report:
        queue = open_queue(crawl, settings, database)
        stop = Stop(settings.download.grace_s)
        signal.signal(signal.SIGTERM, lambda *_: stop.request())
        worker = Worker(
            crawl,
            settings,
            store,
            queue,
            lambda _, done, total: report(done, total),
            stop,
            Metrics(settings.download.metrics_file, settings.core.statsd),
        )
        finished = worker.run() if batch is None else [worker.run_one(batch)]
    for stats in finished:
        console.print(summary(stats), highlight=False)
    if as_json:
        _json(
            {
                "crawl": crawl,
                "stage": "download",
                "batches": [int(stats.unit) for stats in finished],
                "input": sum(stats.input for stats in finished),
                "kept": sum(stats.kept for stats in finished),
            }
        )


@app.command()
def score(
    crawl: CrawlOption,
    shard: Annotated[list[str] | None, typer.Option(help="Shard URI or batch number; left out: all.")] = None,
    group: Annotated[str, typer.Option(metavar="I/G", help="Every G-th shard, from the I-th on.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Shards -> scored shards: CLIP similarity, safety and beauty."""
    from laion_etl.score.devices import score_everywhere

    settings, store = _open()
    batches = [_batch_of(uri) for uri in shard] if shard else _group(_planned(crawl, store), group)
    finished = score_everywhere(
        crawl, batches, settings, store, lambda stats: console.print(summary(stats), highlight=False)
    )
    if as_json:
        kept, total = sum(stats.kept for stats in finished), sum(stats.input for stats in finished)
        _json({"crawl": crawl, "stage": "score", "batches": batches, "input": total, "kept": kept})


@app.command("convert-head")
def convert_head(
    source: Annotated[Path, typer.Argument(help="Zipped SavedModel of LAION's CLIP-based NSFW detector.")],
    target: Annotated[Path, typer.Argument(help="Safetensors file to write.")],
) -> None:
    """LAION's published NSFW head -> a file for LAION_ETL_SAFETY_NSFW_HEAD, without TensorFlow."""
    from laion_etl.score.kerashead import read_keras_head

    head = read_keras_head(source)
    head.save(target)
    console.print(f"{target}: a head for embeddings of {head.dim} numbers", highlight=False)


@app.command()
def publish(
    crawl: CrawlOption,
    name: Annotated[
        str, typer.Option(callback=_name, help="Name of the dataset; left out: LAION_ETL_PUBLISH_NAME.")
    ] = "",
    expect: Annotated[
        str, typer.Option(help="Partitions there should be, like 0-2,5: too many missing ones are an error.")
    ] = "",
    allow_missing: Annotated[
        float, typer.Option(min=0, max=1, help="With --expect: share of partitions and batches.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Scored shards -> dataset, card, manifest, report."""
    from laion_etl.publish.completeness import Expected
    from laion_etl.publish.stage import publish_variants

    settings, store = _open()
    expected = Expected(read_numbers(expect), allow_missing) if expect else None
    if name:
        settings = replace(settings, publish=replace(settings.publish, name=name))
    for stats in publish_variants(crawl, settings, store, expected):
        _done(stats, as_json, **_show_places(stats, store))


@app.command("run")
def run_crawl(
    crawl: Annotated[str, typer.Argument(callback=_name, help="Crawl id, or a name of your own with --wat.")],
    wat: Annotated[
        list[str] | None, typer.Option(help="WAT file (path, s3://, https://); repeatable.")
    ] = None,
    wat_files: SelectionOption = "",
) -> None:
    """All of it on this machine, without Airflow."""
    from laion_etl.run import LocalRun

    settings, store = _open()
    found = [Partition(crawl, 0, 0, tuple(wat))] if wat else _partitions(crawl, wat_files, settings)
    published = LocalRun(crawl, settings, store, console).all_stages(found)
    _show_funnel(crawl, store)
    for stats in published:
        _show_places(stats, store)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Leave Airflow running until Ctrl-C.")] = False,
) -> None:
    """The mini crawl through Airflow, from nothing to a report."""
    from laion_etl.demo import run_demo

    raise typer.Exit(run_demo(Path(load_settings().core.data_dir) / "demo", keep, console))


@app.command()
def status(
    crawl: Annotated[str, typer.Option(callback=_name, help="Crawl id; left out: all crawls.")] = "",
    as_json: JsonOption = False,
) -> None:
    """How far a crawl is: stages, rates, time left, leases, failures, and its funnel so far."""
    from laion_etl.database.connect import open_database
    from laion_etl.overview import crawl_funnel
    from laion_etl.status import all_crawls, crawl_status, crawls_to_plain

    settings, store = _open()
    with open_database(settings) as database:
        if not crawl:
            console.print(all_crawls(database))
            if as_json:
                _json({"crawls": crawls_to_plain(database)})
            return
        found = crawl_status(crawl, crawl_funnel(store, crawl), database)
    console.print(found.as_table())
    _show_funnel(crawl, store)
    if as_json:
        _json(found.to_plain())


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0: a free one.")] = 8_081,
) -> None:
    """The dashboard without Airflow, on this machine only: nobody is asked who they are."""
    from laion_etl.dashboard.serve import serve

    serve(port, console)


@app.command()
def migrate() -> None:
    """Bring the schema of the database up to date, as its owner; other commands do it too where they may."""
    from laion_etl.database.connect import open_database

    settings = load_settings()
    with open_database(settings) as database:
        applied = [name for (name,) in database.rows("connect.migrations")]
    console.print(f"schema: {', '.join(applied)}", highlight=False)


@app.command("memory-export")
def memory_export(
    name: Annotated[str, typer.Argument(callback=_name, help="Name of the file: memory/<name>.parquet.")],
) -> None:
    """All hashes ever seen as one file in the store, to forget old crawls and keep the dedupe."""
    from laion_etl.database.connect import open_database
    from laion_etl.database.memory import export_memory

    settings, store = _open()
    with open_database(settings) as database:
        output, count = export_memory(name, settings, store, database)
    size = f"{output.bytes / count:.1f} bytes each" if count else "empty"
    console.print(f"{count:,} hashes, {size}: {store.uri(output.name)}", highlight=False)


@app.command("memory-import")
def memory_import(
    uri: Annotated[str, typer.Argument(help="An exported file: path, s3:// or https://.")],
) -> None:
    """Remember the hashes of an exported file: later loads drop pairs with them as duplicates."""
    from laion_etl.database.connect import open_database
    from laion_etl.database.memory import import_memory

    settings, _ = _open()
    with open_database(settings) as database:
        stats = import_memory(uri, settings, database)
    console.print(f"{stats.input:,} hashes, {stats.kept:,} of them new", highlight=False)


@app.command()
def report(crawl: CrawlOption) -> None:
    """Make the report page of a published crawl again."""
    from laion_etl.publish.stage import rebuild_report

    settings, store = _open()
    console.print(f"report: {rebuild_report(crawl, settings, store)}", highlight=False)


@app.command()
def forget(crawl: CrawlOption) -> None:
    """Remove a crawl from Postgres, to rebuild it with other settings; files in the store stay."""
    from laion_etl.database.connect import open_database
    from laion_etl.database.plan import forget_crawl

    settings, _ = _open()
    with open_database(settings) as database:
        forget_crawl(crawl, settings, database)
    console.print(f"{crawl} is forgotten; load its partitions to start again", highlight=False)


def _open() -> tuple[Settings, Store]:
    settings = load_settings()
    store = open_store(settings.store_uri)
    store.watcher = StageMetrics(settings.core)
    if settings.core.run_id:  # somebody keeps the log: also what went well
        logging.getLogger("laion_etl").setLevel(logging.INFO)
    store.check()
    return settings, store


def _partitions(crawl: str, selection: str, settings: Settings) -> list[Partition]:
    found = partitions(crawl, settings, parse_selection(selection) if selection else None)
    if not found:
        raise SettingsError(f"--wat-files {selection} selects no WAT file of {crawl}")
    return found


def _partition(crawl: str, number: int, selection: str, settings: Settings) -> Partition:
    found = {partition.number: partition for partition in _partitions(crawl, selection, settings)}
    if number not in found:
        raise SettingsError(f"{crawl} has no partition {number}; it has {min(found)} to {max(found)}")
    return found[number]


def _planned(crawl: str, store: Store) -> list[int]:
    return list(store.read_stats(plan_stats_name(crawl)).details["batches"])


def _group(batches: list[int], group: str) -> list[int]:
    if not group:
        return batches
    index, _, groups = group.partition("/")
    if not (index.isdigit() and groups.isdigit() and int(index) < int(groups)):
        raise SettingsError(f"--group {group} is not I/G with I below G, for example 0/4")
    return sorted(batches)[int(index) :: int(groups)]


def _batch_of(shard: str) -> int:
    stem = shard.rsplit("/", 1)[-1].removesuffix(".tar")
    if not stem.isdigit():
        raise InputError(f"--shard {shard} is no shard: its name must be a batch number and .tar")
    return int(stem)


def _show_places(published: StageStats, store: Store) -> dict[str, str]:
    from laion_etl.publish.presentation import REPORT
    from laion_etl.publish.versions import Release

    release = Release(*published.unit.split("/"))
    places = {"dataset": store.uri(release.folder), "report": store.uri(release.file(REPORT))}
    for what, uri in places.items():
        console.print(f"{what}: {uri}", highlight=False)
    return places


def _show_funnel(crawl: str, store: Store) -> None:
    from laion_etl.overview import crawl_funnel

    console.print(crawl_funnel(store, crawl).as_table())


def _done(stats: StageStats, as_json: bool, **more: Any) -> None:
    console.print(summary(stats), highlight=False)
    if as_json:
        plain = stats.to_plain()
        _json({k: plain[k] for k in ("stage", "crawl", "unit", "input", "kept", "dropped")} | more)


def _json(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    folder, _, name = _RESULT.get().rpartition("/")
    if name:
        open_store(folder).write(name, text.encode())
    print(text, flush=True)


add_commands(app)
