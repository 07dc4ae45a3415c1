"""The one place that keeps out of the pairs what Postgres cannot store, wherever a text comes from.

A value of type text is UTF-8 without NUL (PostgreSQL documentation, 8.3): one that is not makes COPY refuse
all pairs of a partition. The texts of WAT files are clean by the time they arrive here; those of custom
sources and language detectors may be anything.
"""

from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.funnel import Outcomes, ParseReason
from laion_etl.core.schemas import PAIR_SCHEMA
from laion_etl.core.text_columns import buffers_of

_TEXTS = [field.name for field in PAIR_SCHEMA if field.type == pa.string()]


def storable(pairs: pa.Table, outcomes: Outcomes[ParseReason]) -> pa.Table:
    """Returns the pairs whose texts can all be stored; moves the others from kept to dropped."""
    bad = [found for name in _TEXTS for chunk in pairs[name].chunks if (found := _problems(chunk)).any()]
    if not bad:
        return pairs
    refused = reduce(np.logical_or, (_problems(pairs[name].combine_chunks()) for name in _TEXTS))
    count = int(np.count_nonzero(refused))
    outcomes.keep(-count)
    outcomes.drop(ParseReason.NOT_STORABLE, count)
    return pairs.filter(pa.array(~refused))


def _problems(texts: pa.StringArray) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Returns for each text whether it cannot be stored."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        data = texts.cast(pa.binary()).to_pylist()
        return np.array([not _is_text(value) for value in data], np.bool_)
    if not _has_nul(texts):
        return np.zeros(len(texts), np.bool_)
    found = pc.match_substring(texts, "\0")
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _has_nul(texts: pa.StringArray) -> bool:
    """Whether any text has a NUL: one look at all bytes is several times as fast as a look at each text."""
    data, offsets = buffers_of(texts)
    return bool((data[offsets[0] : offsets[-1]] == 0).any())


def _is_text(value: bytes) -> bool:
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False
