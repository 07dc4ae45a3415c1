"""Counts of the stages before publishing for one range of batches, for the funnel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.funnel_report import CountedStage, FunnelRow
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.io.storage import Store

_READERS = 8


def counted_stages(scored: ScoredCrawl, store: Store) -> dict[str, CountedStage]:
    """Add up the stats of the shards and of the scored shards of a range."""
    crawl, numbers = scored.crawl, sorted([*(batch.number for batch in scored.batches), *scored.missing])
    rows = [
        FunnelRow("score", 1, batch.kept + sum(batch.dropped.values()), batch.kept, dict(batch.dropped))
        for batch in scored.batches
    ]
    unusable = _read_stats([scored_stem(crawl, number) for number in scored.missing], store)
    return {
        "download": CountedStage.from_stats(
            "download", _read_stats([shard_stem(crawl, number) for number in numbers], store)
        ),
        "score": CountedStage(FunnelRow.summed("score", rows)).merged(
            CountedStage.from_stats("score", unusable)
        ),
    }


def _read_stats(stems: Sequence[str], store: Store) -> list[StageStats | str]:
    """Return the stats of those batches that have any, and an error message where they are damaged."""

    def read(stem: str) -> StageStats | str | None:
        try:
            return store.read_stats(f"{stem}_stats.json")
        except MissingFileError:
            return None
        except DamagedFileError as error:
            return str(error)

    with ThreadPoolExecutor(_READERS) as pool:
        return [one for one in pool.map(read, stems) if one is not None]
