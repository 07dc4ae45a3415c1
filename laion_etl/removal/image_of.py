"""Finds the image of a URL, for lines `image-of:URL` that ask for the removal of all its copies.

The line becomes the hashes that the rows of the URL have: SHA-256, and PDQ where the image can be recognised
by it. Once these rows are removed the hashes cannot be looked up again, and a removal that was killed has to
be repeated. So `removal-images/<hashes of the URL>.json` has them; like a request it reveals no URL.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from laion_etl.blocklists.column_masks import compared_hashes, to_hashes
from laion_etl.blocklists.near_hashes import is_informative
from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.dataset.locator.keys import wanted_keys
from laion_etl.dataset.locator.lookup import find_files
from laion_etl.dataset.locator.units import located_crawls
from laion_etl.dataset.rewrite import read_table
from laion_etl.io.storage import Store
from laion_etl.removal.lists import Line, RemovalList, hashes_of_urls

_log = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "removal-images"
_COLUMNS = ["url", "sha256", "pdq", "pdq_quality"]
Url = tuple[str, ...]  # its hashes: of the URL and of its host
_WITH_IMAGES = ("shards/", "scored/")


@dataclass(slots=True)
class _Images:
    sha256: set[str] = field(default_factory=set)
    pdq: set[str] = field(default_factory=set)


def with_images(listed: RemovalList, store: Store) -> RemovalList:
    """Return the list with the hashes of the images that `image-of:` lines name, as far as they are known.

    Looked up are the shards, scored or not, of all crawls, and what `record_images` wrote.
    """
    wanted = {line.image_of: _recorded(line.image_of, store) for line in listed.lines if line.image_of}
    if not wanted:
        return listed
    _look_up(wanted, store)
    return replace(listed, lines=tuple(_resolved(line, wanted) for line in listed.lines))


def record_images(listed: RemovalList, store: Store) -> None:
    """Record the hashes of images that were found, before anything is removed."""
    for line in listed.lines:
        if line.image_of and line.rules:
            rules = {kind: sorted(line.rules.get(kind, ())) for kind in ("sha256", "pdq")}
            document = {"format": FORMAT, **rules}
            store.write(_name(line.image_of), json.dumps(document, indent=1).encode() + b"\n")


def _resolved(line: Line, found: dict[Url, _Images]) -> Line:
    if not line.image_of:
        return line
    images = found[line.image_of]
    rules = {"sha256": frozenset(images.sha256), "pdq": frozenset(images.pdq)}
    return replace(line, rules={kind: hashes for kind, hashes in rules.items() if hashes})


def _look_up(wanted: dict[Url, _Images], store: Store) -> None:
    """Add the hashes of all rows with one of the wanted URLs."""
    request = Request({"urls": tuple(sorted({one for url in wanted for one in url}))})
    matcher = Matcher([request], 0)
    for crawl in located_crawls(store):
        candidates = find_files(crawl, wanted_keys([request], 0), store)
        for name in sorted(candidates.found | candidates.uncovered):
            if not name.startswith(_WITH_IMAGES):
                continue
            try:
                rows = read_table(name, store, _COLUMNS)
            except MissingFileError:
                continue  # deleted meanwhile, as raw shards are after scoring
            except InputError as error:  # the removal names it too, ends with exit code 1, and is repeated
                _log.warning("%s", error)
                continue
            _add(rows.filter(pa.array(matcher.finds(rows))), wanted)


def _add(rows: pa.Table, wanted: dict[Url, _Images]) -> None:
    if not rows.num_rows:
        return
    nothing = pa.nulls(rows.num_rows, pa.string())
    sha256 = rows["sha256"] if "sha256" in rows.schema.names else nothing
    pdq = compared_hashes(rows) if "pdq" in rows.schema.names else nothing
    columns = (rows["url"].to_pylist(), sha256.to_pylist(), pdq.to_pylist())
    for url, digest, near in zip(_own_hashes(columns[0]), *columns[1:], strict=True):
        if (images := wanted.get(url)) is not None:
            images.sha256 |= {digest} if digest else set()
            images.pdq |= {near} if near and is_informative(to_hashes([near])).all() else set()


def _own_hashes(urls: Sequence[str]) -> list[Url]:
    """Return the hashes of the URLs of rows: a rule also matches what is below its URL, another image."""
    try:
        return hashes_of_urls(urls, "a row")
    except InputError:
        if len(urls) == 1:
            return [()]
        return [hashes for url in urls for hashes in _own_hashes([url])]


def _recorded(url: Url, store: Store) -> _Images:
    name = _name(url)
    if not store.exists(name):
        return _Images()
    try:
        document = parse_json(store.read(name))
        check_format(store.uri(name), document.get("format"), FORMAT)
        return _Images(set(map(str, document["sha256"])), set(map(str, document["pdq"])))
    except NOT_AS_EXPECTED as error:
        raise InputError(
            f"cannot read {store.uri(name)}: it does not have the hashes of an image ({error}); restore it"
        ) from error


def _name(url: Url) -> str:
    return f"{FOLDER}/{'-'.join(url)}.json"
