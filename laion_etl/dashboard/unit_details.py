"""The documents behind a side panel: a partition's or batch's stats files, and its row in Postgres."""

from contextlib import suppress
from typing import Any

from laion_etl.core.errors import DamagedFileError, LaionEtlError, MissingFileError
from laion_etl.core.funnel import sentence_of
from laion_etl.core.schemas import partition_name, scored_stem, shard_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.dashboard.data_sources import Sources
from laion_etl.io.storage import Store

_MAX_DAMAGES = 5


def partition_document(crawl: str, number: int, sources: Sources) -> dict[str, Any]:
    """Return parse and load of a partition. Raises StorageError if the store is unavailable."""
    store = sources.store()
    name = partition_name(number)
    parsed = _stats(f"pairs/{crawl}/{name}.json", store)
    loaded = _stats(f"load/{crawl}/{name}.json", store)
    facts: list[tuple[str, Any]] = []
    if parsed is not None:
        facts = [("WAT files", parsed.details.get("wat_files")), ("bytes of pairs", _bytes(parsed))]
        damaged = parsed.details.get("damaged") or ()
        facts += [("damaged", str(place)) for place in list(damaged)[:_MAX_DAMAGES]]
    return {
        "number": number,
        "stages": [_stage(stats) for stats in (parsed, loaded) if stats is not None],
        "facts": [fact for fact in facts if fact[1] is not None],
        "commands": [
            f"laion-etl stage {stage} --crawl {crawl} --partition {number}" for stage in ("parse", "load")
        ],
    }


def batch_document(crawl: str, number: int, sources: Sources) -> dict[str, Any]:
    """Return download and score of a batch. Raises StorageError if the store is unavailable."""
    store = sources.store()
    fetched = _stats(shard_stats_name(crawl, number), store)
    scored = _stats(f"{scored_stem(crawl, number)}_stats.json", store)
    facts = _queue_facts(crawl, number, sources)
    if fetched is not None:
        facts += [("bytes of the shard", _bytes(fetched)), *_network_facts(fetched.details.get("network"))]
    return {
        "number": number,
        "stages": [_stage(stats) for stats in (fetched, scored) if stats is not None],
        "facts": facts,
        "commands": [
            f"laion-etl stage download --crawl {crawl} --batch {number}",
            f"laion-etl stage score --crawl {crawl} --shard {number}",
        ],
    }


def _queue_facts(crawl: str, number: int, sources: Sources) -> list[tuple[str, Any]]:
    with suppress(LaionEtlError), sources.database() as database:
        rows = database.rows("dashboard.batch", {"crawl": crawl, "batch": number})
        for state, attempts, pairs, owner, error, since_s, took_s in rows:
            facts = [("state", state), ("attempts", attempts), ("pairs", pairs), ("worker", owner)]
            facts.append(("error", error))
            if took_s is not None:
                facts.append(("download took, seconds", round(took_s, 1)))
            if state in ("downloading", "scoring") and since_s is not None:
                facts.append(("held for, seconds", round(since_s)))
            return [fact for fact in facts if fact[1] != ""]
    return []


def _network_facts(network: Any) -> list[tuple[str, Any]]:
    """Return the diagnosis, and the network numbers it was made from."""
    if not isinstance(network, dict):
        return []
    plain = {name: value for name, value in network.items() if isinstance(value, int | float | str)}
    facts = [(name.replace("_", " "), value) for name, value in list(plain.items())[:12]]
    diagnosis = network.get("diagnosis")
    return [*(("diagnosis", one) for one in (diagnosis if isinstance(diagnosis, list) else ())), *facts]


def _stage(stats: StageStats) -> dict[str, Any]:
    meanings = {reason: sentence_of(stats.stage, reason) for reason in stats.dropped}
    return {
        "stage": stats.stage,
        "input": stats.input,
        "kept": stats.kept,
        "dropped": stats.dropped,
        "meanings": meanings,
    }


def _stats(name: str, store: Store) -> StageStats | None:
    try:
        return store.read_stats(name)
    except (MissingFileError, DamagedFileError):  # damaged: the page names it, and the next run replaces it
        return None


def _bytes(stats: StageStats) -> int:
    return sum(output.bytes for output in stats.outputs)
