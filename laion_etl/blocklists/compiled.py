"""Compiled lists on disk: sorted hashes, written once per source and mapped by every process that needs them.

`<folder>/<digest of URL rule, kind and text>.u64` holds the sorted distinct hashes of a list, 8 bytes each. A
JSON note per source records its validator (ETag of S3 or HTTP; inode, size and times of a file), the text it
had then and the version of the URL rule, so a list is not read again while these are unchanged. A source
without a validator is read every time. One process at a time compiles a list, under a file lock; others wait
for it.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from laion_etl.blocklists.hashes import drop_repeats
from laion_etl.blocklists.syntax import ListKind, TextReader, get_hasher
from laion_etl.core.kernels import Hashes
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.user_paths import user_path
from laion_etl.io.remote_files import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, open_input
from laion_etl.io.storage import s3_reader, storage_errors
from laion_etl.urls import normalize

_FORMAT = "1"  # increase it whenever the hash function changes: old files are then no longer found
_HASH_BYTES = 8
_SETTLED_S = 2.0  # a file changed more recently might change again within the resolution of its times


@dataclass(frozen=True, slots=True)
class CompiledList:
    """The sorted hashes of a source, mapped from disk, and the SHA-256 of its text."""

    content: str
    entries: Hashes


def compiled_list(kind: ListKind, source: str, folder: Path) -> CompiledList:
    """Returns the list at a path, s3://, https:// or http:// URI; compiles it into `folder` if needed.

    Raises InputError if the source cannot be read or has an invalid line, StorageError for the folder.
    """
    files = _Files(folder, kind, source)
    validator = _validator(source)
    with storage_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (known := files.opened(validator)) is not None:
        return known
    with files.locked():
        return files.opened(_validator(source)) or files.compile()


class _Files:
    """The files of one list in the folder."""

    def __init__(self, folder: Path, kind: ListKind, source: str) -> None:
        name = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:32]
        self._folder = folder
        self._kind = kind
        self._source = source
        self._note = folder / f"{name}.json"
        self._lock = folder / f"{name}.lock"
        self._partial = folder / f"{name}.partial"

    def opened(self, validator: str | None) -> CompiledList | None:
        """Returns the list compiled under this validator of its source, if there is one."""
        noted_validator, content, rule = self._read_note()
        if validator is None or (validator, normalize.RULE_VERSION) != (noted_validator, rule):
            return None
        try:
            return CompiledList(content, map_hashes(self._path(content)))
        except FileNotFoundError:
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the list for one process; the lock ends with the process."""
        with storage_errors("lock", self._lock), self._lock.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def compile(self) -> CompiledList:
        """Reads the source and writes its hashes. The caller must hold the lock."""
        before = _validator(self._source)
        try:
            with open_input(self._source) as stream:
                content = write_hashes(self._kind, TextReader(stream, self._source), self._partial)
            entries = self._published(content)
        finally:
            self._partial.unlink(missing_ok=True)
        self._write_note(content, before if before == _validator(self._source) else None)
        return CompiledList(content, entries)

    def _published(self, content: str) -> Hashes:
        """Moves the hashes to the name of their text, unless an equal text was compiled before."""
        path = self._path(content)
        with storage_errors("write", path):
            try:
                return map_hashes(path)
            except FileNotFoundError:
                sort_hashes(self._partial)
            entries = map_hashes(self._partial)
            self._partial.replace(path)
        return entries

    def _path(self, content: str, rule: int | None = None) -> Path:
        """Returns the place of the hashes of a text by a version of the URL rule, without one today's."""
        rule = normalize.RULE_VERSION if rule is None else rule
        made_by = _FORMAT if rule == 1 else f"{_FORMAT} {rule}"  # as before there was a number
        digest = hashlib.sha256(f"{made_by}\n{self._kind}\n{content}".encode()).hexdigest()
        return self._folder / f"{digest}.u64"

    def _read_note(self) -> tuple[str | None, str, int]:
        """Returns validator, content and URL rule when the source was last read; ignores an invalid note."""
        try:
            note = parse_json(self._note.read_bytes())
            return note["state"], note["content"], int(note.get("url_rule", 1))
        except (FileNotFoundError, *NOT_AS_EXPECTED):
            return None, "", 1

    def _write_note(self, content: str, validator: str | None) -> None:
        """Writes the note and removes the list of an older content or rule; who has it mapped keeps it."""
        _, old, old_rule = self._read_note()
        note = json.dumps(
            {
                "source": self._source,
                "state": validator,
                "content": content,
                "url_rule": normalize.RULE_VERSION,
            }
        )
        with storage_errors("write", self._note):
            self._partial.write_text(note)
            self._partial.replace(self._note)
            if old and (old, old_rule) != (content, normalize.RULE_VERSION):
                self._path(old, old_rule).unlink(missing_ok=True)


def write_hashes(kind: ListKind, reader: TextReader, path: Path) -> str:
    """Writes the hashes of a source in order of its entries; returns the SHA-256 of its text."""
    hash_entries = get_hasher(kind)
    with storage_errors("write", path):
        file = path.open("wb")
    with file:
        for lines in reader.blocks():
            hashes = hash_entries(lines)
            with storage_errors("write", path):
                file.write(hashes.data)
    return reader.content


def sort_hashes(path: Path) -> None:
    """Sorts a file of hashes in place and removes duplicates."""
    if not path.stat().st_size:
        return
    values = np.memmap(path, np.uint64, "r+")
    values.sort()
    count = drop_repeats(np.asarray(values))
    values.flush()
    del values
    with path.open("r+b") as file:
        file.truncate(count * _HASH_BYTES)
        os.fsync(file.fileno())


def map_hashes(path: Path) -> Hashes:
    """Maps the hashes of a file read-only; only pages in use take memory, shared by all processes."""
    if path.stat().st_size:
        return np.asarray(np.memmap(path, np.uint64, "r"))
    nothing = np.empty(0, np.uint64)
    nothing.flags.writeable = False
    return nothing


def _validator(source: str) -> str | None:
    """Returns a validator (strong ETag, or inode, size and times); None if the source offers none."""
    scheme = urlsplit(source).scheme.lower() if "://" in source else ""
    if scheme in ("http", "https"):
        return _http_validator(source)
    if scheme == "s3":
        return _s3_validator(source)
    return _file_validator(Path(unquote(urlsplit(source).path)) if scheme else user_path(source))


def _file_validator(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # reading it will raise the error
    if not path.is_file() or time.time() - max(stat.st_mtime, stat.st_ctime) < _SETTLED_S:
        return None
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _s3_validator(source: str) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    from laion_etl.io.storage.s3_answers import answered

    parts = urlsplit(source, allow_fragments=False)
    try:
        ask = partial(s3_reader().head_object, Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        head = answered(ask)
    except (BotoCoreError, ClientError):
        return None
    return f"{head['ETag']} {head.get('ContentLength', '')} {head.get('VersionId', '')}"


def _http_validator(source: str) -> str | None:
    """Returns the strong ETag (RFC 9110 8.8.1), which differs whenever the bytes do."""
    from urllib3 import Retry, Timeout, request
    from urllib3.exceptions import HTTPError

    headers = {"User-Agent": "laion_etl", "Accept-Encoding": "identity"}
    timeout = Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
    try:
        response = request("HEAD", source, headers=headers, retries=Retry(3, redirect=3), timeout=timeout)
    except HTTPError:
        return None
    etag = response.headers.get("ETag", "")
    return etag if response.status == HTTPStatus.OK and etag.startswith('"') else None
