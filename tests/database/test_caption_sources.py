"""The source of a caption goes with its pair through Postgres into the batches."""

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import PAIR_FILES
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.io.planned import batches_in
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import Settings
from tests.database.pairs import numbered_pairs, write_pairs

SOURCES = ("alt", "title", "link", "alt", "og", None)


def rewrite(store: Store, partition: int, table: pa.Table) -> None:
    """Replaces the file of a partition, and its stats."""
    unit = f"part-{partition:05d}"
    with store.create(f"pairs/C/{unit}.parquet") as file:
        pq.write_table(table, file)
    stats = StageStats("parse", "C", unit, f"f{partition}", len(table), len(table), outputs=(file.output,))
    store.write_stats(f"pairs/C/{unit}.json", stats)


def table_of(store: Store, name: str) -> pa.Table:
    with store.open(name) as file:
        return pq.ParquetFile(file).read()


def test_sources_reach_the_batches_and_rows_of_earlier_formats_are_alt(
    store: Store, database: Database, settings: Settings
) -> None:
    expected: dict[str, str] = {}
    for partition in range(2):
        write_pairs(store, "C", partition, numbered_pairs(30 * partition, 30 * partition + 30))
        table = table_of(store, f"pairs/C/part-{partition:05d}.parquet")
        if partition:  # as version 0.2 wrote it before there were sources
            format_2 = PAIR_FILES.columns(2).with_metadata({b"laion_etl.format": b"2"})
            table = table.select(format_2.names).cast(format_2)
            sources = ["alt"] * len(table)
        else:
            sources = [SOURCES[number % len(SOURCES)] for number in range(len(table))]
            place = table.schema.get_field_index("caption_source")
            table = table.set_column(place, table.schema.field(place), pa.array(sources, pa.string()))
        expected |= {
            url: source or "alt" for url, source in zip(table["url"].to_pylist(), sources, strict=True)
        }
        rewrite(store, partition, table)
        load_partition("C", partition, settings, store, database)
    stats = plan_batches("C", settings, store, database)
    batches = [table_of(store, f"batches/C/{batch_name(batch)}.parquet") for batch in batches_in(stats)]
    found = pa.concat_tables(batches)
    assert dict(zip(found["url"].to_pylist(), found["caption_source"].to_pylist(), strict=True)) == expected
    stored = database.connection.execute("select count(*), count(caption_source) from pair").fetchone()
    assert stored == (60, 15), "alt is null"
