"""The long-lived processes of benchmarks/soak.py: `python -m benchmarks.soak_work download|score|rounds`.

Each repeats its work until SIGTERM. `rounds` makes the work: it parses, loads and plans the mini crawl, waits
until the others have scored it, publishes it, and removes it from the store and Postgres. Errors of services
are expected, and printed as one line that begins with `error`; whatever else happens ends the process.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from laion_etl.core.errors import IncompleteError, LaionEtlError, NotLoadedError
from laion_etl.core.stopping import Stop
from laion_etl.crawl import partitions
from laion_etl.database.connection import Database, open_database
from laion_etl.database.forget import forget_crawl
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import Store, open_store
from laion_etl.minicrawl.build import CRAWL
from laion_etl.pipeline import Pipeline
from laion_etl.score.group import score_queue
from laion_etl.settings import Settings, load_settings

OBJECTS = "SOAK_OBJECTS"  # the folder in which the S3 server keeps the store
KEPT = "SOAK_KEPT"  # where the first published dataset is copied to, for the search page
_GRACE_S = 1.0
_PAUSE_S = 0.5
_WAT_FILES = slice(0, 3)

Work = Callable[[Settings, Store, Database, Stop], None]


def download(settings: Settings, store: Store, database: Database, stop: Stop) -> None:
    """Download what is left of the crawl, as a download pod does."""
    hosts = SharedHosts(database, settings.download)
    done = Worker(CRAWL, settings, store, open_queue(CRAWL, settings, database), stop=stop, hosts=hosts).run()
    _report("batches", len(done))


def score(settings: Settings, store: Store, database: Database, stop: Stop) -> None:
    """Score it, as a score pod does."""
    done = score_queue(CRAWL, settings, store, database, stop)
    _report("batches", len(done.scored))


def a_round(settings: Settings, store: Store, database: Database, stop: Stop) -> None:
    """One crawl from its WAT files to a published dataset."""
    crawl = Pipeline(CRAWL, partitions(CRAWL, settings, _WAT_FILES), settings, store, database)
    for partition in crawl.partitions:
        crawl.parse(partition)
        crawl.load(partition)
    crawl.plan()
    queue = open_queue(CRAWL, settings, database)
    while not stop.requested:
        counts = queue.counts()
        if not counts.ready + counts.downloading + counts.downloaded + counts.scoring:
            break
        ENDED.wait(_PAUSE_S)
    if stop.requested:
        return
    try:
        crawl.publish(crawl.expected())
    except IncompleteError as error:  # a batch that failed too often: the next round has all again
        _report("error", str(error).splitlines()[0])
    else:
        _keep(store)
        _report("rounds", 1)
    forget_crawl(CRAWL, settings, store, database)
    for name in store.list(""):
        store.delete(name)


def _keep(store: Store) -> None:
    """Copy the files of the first round, for the search page."""
    kept = Path(os.environ[KEPT])
    if kept.exists():
        return
    prefix = store.uri().removeprefix("s3://").strip("/")
    shutil.copytree(Path(os.environ[OBJECTS], prefix), kept.with_suffix(".part"))
    kept.with_suffix(".part").rename(kept)


def _report(what: str, value: object) -> None:
    if value:
        print(what, value, flush=True)


WORK: dict[str, Work] = {"download": download, "score": score, "rounds": a_round}
ENDED = threading.Event()


def main() -> None:
    work, stop = WORK[sys.argv[1]], Stop(_GRACE_S)

    def end(*_: object) -> None:
        stop.request()
        ENDED.set()

    signal.signal(signal.SIGTERM, end)
    settings = load_settings()
    store = open_store(settings.store_uri)
    while not stop.requested:
        try:
            with open_database(settings) as database:
                work(settings, store, database, stop)
        except NotLoadedError:
            pass  # between two rounds
        except LaionEtlError as error:
            _report("error", f"{type(error).__name__}: {error}".splitlines()[0])
        ENDED.wait(_PAUSE_S)


if __name__ == "__main__":
    main()
