"""Batch numbers, sample ids and how they are written, for modules that must not import pyarrow.

A batch number has twelve digits: the prefix of its crawl, six digits, and six counted within the crawl
(`laion_etl/plan/batch_numbers.py` gives them). A sample id is the batch number and five more digits, the row
in the batch. Version 0.1 counted batches over all crawls of a database and wrote nine digits, as shards made
without a crawl still do. These numbers are below those of any crawl: the number says how it is written.
"""

import re

INDEX_DIGITS = 5  # of a sample within its batch
MAX_BATCH_PAIRS = 100_000
BATCHES_PER_CRAWL = 1_000_000

_BATCH = r"(?:\d{9}|[1-9]\d{11})"
_KEY = re.compile(rf"{_BATCH}\d{{{INDEX_DIGITS}}}\Z", re.ASCII)
_STATS = re.compile(rf"(?:.*/)?({_BATCH})_stats\.json\Z", re.ASCII)


def batch_name(batch: int) -> str:
    """Return a batch number as it is written in names of files and in keys: 12 digits, of version 0.1 9."""
    return f"{batch:09d}"


def sample_key(batch: int, index: int) -> str:
    """Return the key of a sample: the digits of its batch, and five of its row in the batch."""
    return f"{batch_name(batch)}{index:0{INDEX_DIGITS}d}"


def is_sample_key(text: str) -> bool:
    """Whether a text is the key of a sample: 17 digits, of version 0.1 14."""
    return _KEY.match(text) is not None


def batch_of_stats(name: str) -> int | None:
    """Return the batch of a file `<batch>_stats.json` in the store; None if it is another file."""
    match = _STATS.match(name)
    return int(match[1]) if match else None
