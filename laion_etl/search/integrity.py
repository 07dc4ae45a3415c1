"""Checks the files of an index before they are mapped: a damaged graph crashes the process that searches it.

A file is hashed once. A note in the data folder, with its size and time of change, says that it was right, so
that only a file that has been written to since is read again: an index has gigabytes.
"""

import hashlib
import logging
from pathlib import Path

from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import Store, local_copy

_log = logging.getLogger(__name__)


def checked_copy(store: Store, output: Output, folder: Path) -> Path:
    """Return the local path of a file, fetched into `folder` if it is not local.

    Raises InputError unless it is the one that stats describe.
    """
    try:
        path = local_copy(store, output, folder)
    except MissingFileError as error:
        raise _not_usable(store.uri(output.name), "it is missing", output, store) from error
    _check(path, output, store, folder)
    return path


def _check(path: Path, output: Output, store: Store, folder: Path) -> None:
    """Raise InputError unless a local file is the one that stats describe; notes are kept in `folder`."""
    note, state = folder / "checked" / output.sha256, _state(path)
    if state.startswith(f"{output.bytes} ") and _read(note) == state:
        return
    cause = "it is missing or truncated"
    if state.startswith(f"{output.bytes} "):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == output.sha256:
                _write(note, state)
                return
        cause = "it is damaged, its SHA-256 is not the one in its stats"
    raise _not_usable(path, cause, output, store)


def _not_usable(path: object, cause: str, output: Output, store: Store) -> InputError:
    return InputError(
        f"cannot open {path}: {cause}; delete {store.uri(output.name)} and its stats, then index again"
    )


def _state(path: Path) -> str:
    if not path.is_file():
        return ""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {path}"


def _read(note: Path) -> str:
    try:
        return note.read_text()
    except OSError:
        return ""


def _write(note: Path, state: str) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(state)
    except OSError as error:  # the file is only hashed again the next time
        _log.info("cannot note in %s that a file was checked: %s", note, error)
