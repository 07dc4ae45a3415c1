"""The demo's folder: created afresh each time, locked while in use, deleted only if the demo made it."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from laion_etl.core.errors import DemoError
from laion_etl.demo.services import end_marked

_MARKER = ".laion-etl-demo"
_NOTE = "Made by `laion-etl demo`, which deletes this folder when it starts again.\n"


@contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """An empty folder that no other demo uses until the block ends; an earlier demo's folder is replaced.

    Raises DemoError for a folder that holds anything else, and for one in use.
    """
    marker = folder / _MARKER
    if marker.is_file():
        with _locked(marker):
            end_marked("AIRFLOW_HOME", str(folder / "airflow"))
            shutil.rmtree(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoError(
            f"cannot use {folder}: it was not made by the demo; remove it, "
            "or set LAION_ETL_DATA_DIR to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(_NOTE)
    with _locked(marker):
        yield


@contextmanager
def _locked(marker: Path) -> Iterator[None]:
    """An advisory lock, released when the process ends for whatever reason."""
    with marker.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoError(
                f"cannot use {marker.parent}: another demo is running in it; stop that one first"
            ) from error
        yield
