"""Parse one WAT file with a custom filter, and write its pairs as parquet.

python examples/parse_one_wat.py CC-MAIN-....warc.wat.gz pairs.parquet
"""

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import laion_etl as le


def english_only(pairs: pa.Table) -> pa.Array:
    """Keep English captions: None keeps a pair, a name is the reason why it is dropped."""
    return pc.if_else(pc.equal(pairs["language"], "en"), None, "not_english")


def main(wat: str, out: str) -> None:
    pairs = le.read_wat(wat, filters=[english_only])
    pq.write_table(pa.concat_tables(pairs), out)
    print(pairs.funnel)


if __name__ == "__main__":
    main(*sys.argv[1:])
