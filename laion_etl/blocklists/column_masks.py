"""Masks of rows by the values of a column: which are listed, and which PDQ hashes are near listed ones."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes, NearListed
from laion_etl.core.pdq_quality import MIN_QUALITY

Mask = npt.NDArray[np.bool_]


def column(rows: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    """Return a column in one piece."""
    found = rows.column(name)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def compared_hashes(rows: pa.RecordBatch | pa.Table) -> pa.Array:
    """Return the PDQ hashes of rows, null where the quality is too low to recognise an image by them.

    Rows of earlier versions have no quality, or null.
    """
    hashes = column(rows, "pdq")
    if "pdq_quality" not in rows.schema.names:
        return hashes
    low = pc.fill_null(pc.less(column(rows, "pdq_quality"), MIN_QUALITY), False)
    return pc.if_else(low, pa.scalar(None, hashes.type), hashes)


def is_in(values: pa.Array, listed: AbstractSet[str] | AbstractSet[bytes]) -> Mask:
    """Whether each value is listed; null is not. Of rows and list the longer one is looked up, not copied."""
    if not listed:
        return np.zeros(len(values), np.bool_)
    if len(listed) > len(values):
        return np.fromiter((one in listed for one in values.to_pylist()), np.bool_, len(values))
    found = pc.is_in(values, value_set=pa.array(listed, values.type))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def near(hashes: Sequence[str | None], listed: NearListed) -> Mask:
    """Whether each PDQ hash, hexadecimal, is near a listed one; null and '' are not."""
    known = [row for row, one in enumerate(hashes) if one]
    found = np.zeros(len(hashes), np.bool_)
    found[np.asarray(known, np.int64)] = listed.near(to_hashes([one for one in hashes if one]))
    return found


def to_hashes(hashes: Sequence[str]) -> Hashes:
    """Return hexadecimal hashes as rows of bytes."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, HASH_BYTES)
