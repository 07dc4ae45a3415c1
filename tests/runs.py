"""Runs of the mini crawl's first two WAT files as processes: their settings, and what they leave."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore
from tests.forks import Fork, piped
from tests.preloaded_commands import command_server
from tests.prompt_web import LONG_LIMITS
from tests.shared_folder import SharedFolder

WAT_FILES = "0:2"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """Where a run that is done left its files, and the name of its database."""

    store: Path
    database: str


def run_environment(store: Path, url: str, source: str, connect_to: Sequence[str]) -> dict[str, str]:
    """This environment with the settings of a run: two partitions, batches of 200, short leases.

    The address of the source is part of the fingerprint of parse: for the same bytes it has to be the same,
    and the mini web of each process of the tests has an address of its own.
    """
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "LAION_ETL_"))}
    return plain | {
        "LAION_ETL_STORE": str(store),
        "LAION_ETL_DATABASE_URL": url,
        "LAION_ETL_CRAWL_SOURCE": source,
        "LAION_ETL_WAT_FILES_PER_PARTITION": "1",
        "LAION_ETL_PLAN_BATCH_SIZE": "200",
        "LAION_ETL_DOWNLOAD_CONNECT_TO": ",".join(connect_to),
        **LONG_LIMITS,
        "LAION_ETL_DOWNLOAD_LEASE_S": "3",
        "LAION_ETL_DOWNLOAD_MAX_ATTEMPTS": "20",
        "LAION_ETL_CLIP_MODEL": "laion-etl-tiny",
        "LAION_ETL_CLIP_PRETRAINED": "scenes",
        # One of each, however many cores there are: a process takes most of a second to start.
        "LAION_ETL_PARSE_JOBS": "1",
        "LAION_ETL_DOWNLOAD_DECODERS": "1",
        "LAION_ETL_CLIP_PREPARERS": "1",
    }


def start_run(crawl: str, env: dict[str, str]) -> Fork:
    """`laion-etl run` of the two WAT files."""
    server = command_server(SharedFolder.of_this_run(), env)
    return piped(server, ["-m", "laion_etl", *run_command(crawl)], env, Path.cwd())


def run_command(crawl: str) -> list[str]:
    return ["run", crawl, "--wat-files", WAT_FILES]


def finish_run(crawl: str, env: dict[str, str]) -> None:
    """Runs to the end, which must be a good one."""
    run = start_run(crawl, env)
    output = run.finished()
    assert run.returncode == 0, output


def files(folder: Path) -> dict[str, bytes]:
    """All files except usage records and download timings, which differ from run to run."""
    store = LocalStore(folder)
    found = {name: store.read(name) for name in store.list("") if not name.startswith("usage/")}
    shards = [name for name in found if name.startswith("shards/") and name.endswith("_stats.json")]
    return found | {name: replace(StageStats.from_json(found[name]), details={}).to_json() for name in shards}
