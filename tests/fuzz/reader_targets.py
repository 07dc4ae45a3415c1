"""Targets for readers of files that users give, compared with another way to read or to write the same."""

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from laion_etl.core.errors import SettingsError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.parse.srcset import candidates
from laion_etl.parse.warc_records import WarcRecord, split_records
from laion_etl.settings import load_settings
from laion_etl.settings.registry import as_environment

_MOST_BYTES = 100_000
_MOST_PIXELS = 1e9  # with more digits it is no descriptor
_EXTRA_BYTES = 1_000  # of bit masks, and of the places after the last text


def bounds(data: bytes) -> None:
    """A parquet file: an error of pyarrow, or a table within the bound that was asked for."""
    with suppress(pa.ArrowException, OSError):
        file = BoundedParquet(io.BytesIO(data))
        table = file.read(most_bytes=_MOST_BYTES)
        assert table.nbytes <= 2 * _MOST_BYTES + _EXTRA_BYTES * table.num_columns


def settings(data: bytes) -> None:
    """A file of settings: SettingsError in one line, or settings that another process gets as they are."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        try:
            found = load_settings({"LAION_ETL_CONFIG": file.name})
        except SettingsError as error:
            assert "\n" not in str(error)
            return
        passed_on = as_environment(found)
        if not any("\0" in value for value in passed_on.values()):  # which no environment can hold
            assert load_settings(passed_on) == found


def warc(data: bytes) -> None:
    """WARC records: each begins behind the one before, and reading from there on finds the same one."""
    end = 0
    for record in split_records(data):
        assert end <= record.start
        end = record.start
        if isinstance(record, WarcRecord):
            again = next(split_records(data[record.start :]))
            assert isinstance(again, WarcRecord)
            assert (again.head, again.payload, again.is_whole) == (
                record.head,
                record.payload,
                record.is_whole,
            )
            end += len(record.payload)
    assert end <= len(data)


def srcsets(data: bytes) -> None:
    """A srcset: URLs without spaces; written again, they are the same."""
    text = data.decode("utf-8", "replace")
    found = [one for one in candidates(text) if not one[0].startswith(",") and one[1] < _MOST_PIXELS]
    assert all(url.split() == [url] and not url.endswith(",") for url, _ in found)
    assert candidates(", ".join(f"{url} {size:.9f}w" for url, size in found)) == found


READERS: tuple[Callable[[bytes], None], ...] = (bounds, settings, warc, srcsets)
