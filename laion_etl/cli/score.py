"""The command `laion-etl stage score`: batches of the queue, or named shards without a database."""

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import CrawlOption, JsonOption, console, open_settings, say, say_json
from laion_etl.cli.console import summary
from laion_etl.cli.extras import needs
from laion_etl.core.errors import InputError, SettingsError
from laion_etl.core.whole_numbers import whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from laion_etl.core.stage_stats import StageStats


@needs("score")
def score(  # noqa: PLR0913, PLR0917 - Typer declares options as parameters
    crawl: CrawlOption,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            help="Batch number or URI of a shard to score without the queue; may be given several times."
        ),
    ] = None,
    shards_from: Annotated[
        typer.FileText | None,
        typer.Option(
            metavar="FILE",
            help="File with batch numbers or URIs to score without the queue, one per line; - is stdin.",
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="I/G",
            help="Score one of G equal groups of the planned shards, I from 0 to G-1, without the queue.",
        ),
    ] = "",
    allow_missing: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the crawl's batches (of those named, if any) that may be missing, 0 to 1.",
        ),
    ] = 0.0,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Also score again what another model or other settings have scored; give it to one worker.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no line for each scored shard.")] = False,
    each: Annotated[
        bool, typer.Option("--each", hidden=True, help="Print the counts of each scored shard as JSON.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score the samples of shards: CLIP similarity, safety and aesthetic score.

    Claims downloaded batches from the queue in Postgres until every batch of the crawl is scored or parked,
    and waits while batches are being downloaded; run as many of these commands as there are GPUs. With
    --shard, --shards-from or --group it scores those shards without a database.

    What another model or other settings have scored stays as it is, with a warning, unless --again is given.

    Missing or damaged shards are skipped and listed with their causes; at the end they decide whether the
    command succeeds.
    """
    from laion_etl.io.planned import planned_batches
    from laion_etl.score.devices import scoring_recorded
    from laion_etl.score.group import score_group

    settings, store = open_settings()
    named = shard is not None or shards_from is not None
    on_done = _say_counts if each else None if quiet else _say_summary
    if not named and not group:
        _score_from_queue(crawl, allow_missing, on_done, as_json, again=again)
        return
    if again:
        raise SettingsError(
            "cannot use --again with named shards or a group: these are always scored again when the model "
            "or the settings have changed; leave it out"
        )
    lines = [*(shard or ()), *_lines(shards_from)]
    every = [_batch_of(line) for line in lines] if named else planned_batches(crawl, store)
    unit = "named" if named else group
    with scoring_recorded(crawl, unit, settings.clip, store):
        done = score_group(
            crawl,
            every if named else _group(every, group),
            settings,
            store,
            "" if named else group,
            on_done,
        )
    if as_json:
        say_json(done.to_plain())
    done.check(len(every), allow_missing)


def _score_from_queue(
    crawl: str,
    allow_missing: float,
    on_done: "Callable[[StageStats], None] | None",
    as_json: bool,
    *,
    again: bool,
) -> None:
    from laion_etl.core.stopping import Stop
    from laion_etl.database.connection import open_database
    from laion_etl.score.devices import scoring_recorded
    from laion_etl.score.group import score_queue

    settings, store = open_settings()
    stop = Stop(settings.download.grace_s)
    signal.signal(signal.SIGTERM, lambda *_: stop.request())
    if on_done is _say_counts:  # started by another process of this package
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with (
        scoring_recorded(crawl, "worker", settings.clip, store),
        open_database(settings) as database,
    ):
        done = score_queue(crawl, settings, store, database, stop, on_done, again=again)
    if not done.scored and on_done is _say_summary:
        say(
            f"score: no batch of {crawl} is left, {done.scored_in_all:,} are scored; with --again another "
            "model, or other settings, score them once more"
        )
    if as_json:
        say_json(done.to_plain())
    done.check(done.total, allow_missing)


def _say_summary(stats: "StageStats") -> None:
    console().print(summary(stats), highlight=False)


def _say_counts(stats: "StageStats") -> None:
    """Print the counts for the parent process; see laion_etl/score/multi_gpu.py."""
    counts = {name: getattr(stats, name) for name in ("unit", "fingerprint", "input", "kept", "dropped")}
    print(json.dumps({"scored": counts}), flush=True)


def _group(batches: list[int], group: str) -> list[int]:
    if not group:
        return batches
    index, groups = map(whole_number, group.partition("/")[::2])
    if index is None or groups is None or index >= groups:
        raise SettingsError(f"invalid --group {group}; expected I/G with I below G, for example 0/4")
    return sorted(batches)[index::groups]


def _end_with_stdin() -> None:
    """Request a shutdown of this process when its parent has ended."""
    while os.read(0, 4_096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _lines(file: typer.FileText | None) -> list[str]:
    return [line.strip() for line in file or () if line.strip()]


def _batch_of(shard: str) -> int:
    stem = shard.rsplit("/", 1)[-1].removesuffix(".tar")
    if (number := whole_number(stem)) is None:
        raise InputError(
            f"invalid --shard {shard}; expected a batch number, or a URI ending in a batch number and .tar"
        )
    return number
