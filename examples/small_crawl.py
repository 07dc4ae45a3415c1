"""A whole small crawl in Python: WAT files to a dataset, in the data folder, with an embedded Postgres.

Set LAION_ETL_DOWNLOAD_USER_AGENT to a name and an address where you can be reached.

python examples/small_crawl.py my-crawl CC-MAIN-....warc.wat.gz
"""

import sys

import laion_etl as le


def main(crawl: str, *wat_files: str) -> None:
    with le.CrawlRun(crawl, wat_files) as run:
        for stage in (run.parse, run.load, run.plan, run.download, run.score, run.publish):
            for stats in stage():
                print(f"{stats.stage} {stats.unit}: {stats.input:,} in, {stats.kept:,} kept {stats.dropped}")
        path = run.store.uri(f"dataset/{run.settings.publish.name}")
    for table in le.open_dataset(path).rows(columns=["TEXT", "URL", "similarity"]):
        for row in table.to_pylist():
            print(f"{row['similarity']:.3f} {row['TEXT']} {row['URL']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
