"""Signed receipts of removals, to send to who asked: what was asked, what matched, and where it is gone.

A receipt is a JSON document with an Ed25519 signature and the public key that checks it. HMAC was refused:
only who made a receipt could check it. It is written from what the store has recorded, so it can be written
at any time after a removal, however that was divided, and again for some of the lines, for one of several who
asked.
"""

import json
import os
from binascii import unhexlify
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from laion_etl.blocklists.removal_requests import Request
from laion_etl.core.errors import InputError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.dataset.locator.units import published_datasets
from laion_etl.dataset.manifest import read_manifest
from laion_etl.dataset.versions import Version, read_versions
from laion_etl.io.storage import Store
from laion_etl.removal.line_counts import LineResult
from laion_etl.removal.work import is_finished

FORMAT = 1
KIND = "laion-etl removal receipt"
_SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class DatasetResult:
    """A dataset that had what was removed: the last version with it, and the first one without it."""

    dataset: str
    before: Version | None
    after: Version
    holding: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.dataset,
            "before": _version(self.before) if self.before else None,
            "after": _version(self.after),
            "still_has_it": list(self.holding),
        }


def receipt(
    request: Request, results: Sequence[LineResult], store: Store, when: datetime, key: Ed25519PrivateKey
) -> dict[str, Any]:
    """Return the signed receipt of a removal for some lines of its list.

    Raises InputError if the removal is not finished: files may still have what was removed.
    """
    if not is_finished(request.id, store):
        raise InputError(
            f"cannot write a receipt of removal {request.id}: it is not finished, so files may still have "
            "what it names; run `laion-etl dataset remove` with its list again until it ends without an error"
        )
    document = {
        "format": FORMAT,
        "kind": KIND,
        "request": request.id,
        "time": when.astimezone(UTC).isoformat(timespec="seconds"),
        "lines": [{"line": one.line.number, "asked": one.line.text, "pairs": one.pairs} for one in results],
        "datasets": [one.to_plain() for one in _datasets(request, store)],
        "public_key": public_key(key),
    }
    return {**document, _SIGNATURE: key.sign(_signed_bytes(document)).hex()}


def check_receipt(data: bytes, source: str) -> dict[str, Any]:
    """Return a receipt whose signature is that of its public key; raises InputError for any other."""
    try:
        document: dict[str, Any] = parse_json(data)
        check_format(source, document["format"], FORMAT)
        kinds = {KIND: Ed25519PublicKey}
        signer = kinds[document["kind"]].from_public_bytes(unhexlify(document["public_key"]))
        signer.verify(unhexlify(document[_SIGNATURE]), _signed_bytes(document))
    except InvalidSignature as error:
        raise InputError(
            f"cannot trust {source}: its signature is not that of its content; ask for the original"
        ) from error
    except NOT_AS_EXPECTED as error:
        raise InputError(
            f"cannot read {source}: it is not a receipt of a removal ({error}); check the file"
        ) from error
    return document


def open_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs receipts, or make it; only its owner can read a new file. Raises InputError."""
    try:
        if not path.exists():
            _write_key(path)
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"cannot use the key {path}: {error}; give a PEM file without password as LAION_ETL_RECEIPT_KEY"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"cannot use the key {path}: it is not an Ed25519 key; make one of this kind")
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public part of a key as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def _write_key(path: Path) -> None:
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(data)
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process has made it meanwhile
            path.hardlink_to(partial)
    finally:
        partial.unlink()


def _signed_bytes(document: Mapping[str, Any]) -> bytes:
    """Return all but the signature in one form, however the file was formatted."""
    signed = {name: value for name, value in document.items() if name != _SIGNATURE}
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _datasets(request: Request, store: Store) -> Iterator[DatasetResult]:
    for dataset in published_datasets(store):
        states = [
            (version, state)
            for version in read_versions(dataset, store).listed
            if (state := _has_it(request, dataset, version, store)) is not None
        ]
        holding = [version for version, has_it in states if has_it]
        if not states:
            continue
        if states[-1][1]:
            raise InputError(
                f"cannot write a receipt of removal {request.id}: {dataset}/{states[-1][0].version} still "
                "has what it names; finish the removal first"
            )
        after = max((place for place, (_, has_it) in enumerate(states) if has_it), default=-1) + 1
        before = holding[-1] if holding else None
        names = tuple(version.version for version in holding)
        yield DatasetResult(dataset, before, states[after][0], names)


def _has_it(request: Request, dataset: str, version: Version, store: Store) -> bool | None:
    """Whether a version was published before the removal; None if it has none of the crawls of it."""
    parts = [part for part in read_manifest(dataset, version, store).parts if part.crawl in request.crawls]
    return any(request.id not in part.removals for part in parts) if parts else None


def _version(version: Version) -> dict[str, str]:
    return {"version": version.version, "manifest_sha256": version.manifest.sha256}
