"""A store in a bucket: files are spooled to local disk and sent in one upload."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from laion_etl.core.errors import ChangedError, MissingFileError
from laion_etl.core.host_resources import usable_memory_bytes
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage.errors import NOT_THERE, closed, storage_errors
from laion_etl.io.storage.s3_counting import counted
from laion_etl.io.storage.s3_listing import pages
from laion_etl.io.storage.s3_retry import ATTEMPTS, READ_TIMEOUT_S, retried
from laion_etl.io.storage.s3_upload import upload_if
from laion_etl.io.storage.store import MAX_GUARDED_TRIES, Guard, ListedFile, NewFile, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_S3_CONFIG: dict[str, Any] = {
    "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
    "connect_timeout": 10,
    "read_timeout": READ_TIMEOUT_S,
    "max_pool_connections": 64,  # a removal looks up many small ranges at once
}
_AT_ONCE_BYTES = 8 << 20  # of a download in one request
_MOST_COPIED_BYTES = 5 << 30  # by one request; what is larger passes through here
_NOT_AS_READ = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409")


class S3Store(Store):
    """A prefix in a bucket, through boto3 (AWS_ENDPOINT_URL and the usual credentials are honoured)."""

    def __init__(self, bucket: str, prefix: str, client: "S3Client") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client

    def uri(self, name: str = "") -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def _key(self, name: str) -> str:
        return self._prefix + self._checked(name)

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        self._key(name)  # a wrong name is refused before its content is made
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - `closed` closes it
        with closed(spool):
            yield NewFile(name, spool, self.uri(name))
            if guard is None:
                with storage_errors("write", self.uri(name)):
                    retried(lambda: self._upload(spool, name))
            else:
                self._upload_guarded(spool, name, guard)

    def _upload(self, spool: IO[bytes], name: str) -> None:
        spool.seek(0)
        # upload_fileobj closes what it has read, which a second try still needs.
        with os.fdopen(os.dup(spool.fileno()), "rb") as body:
            self._client.upload_fileobj(body, self._bucket, self._key(name))

    def _upload_guarded(self, spool: IO[bytes], name: str, guard: Guard) -> None:
        for _ in range(MAX_GUARDED_TRIES):
            etag = self._etag(name)
            guard()
            try:
                with storage_errors("write", self.uri(name)):
                    self._if_unchanged(
                        name, etag, lambda condition: upload_if(self._client, spool, condition)
                    )
            except ChangedError:
                continue
            return
        raise self._changed(name)

    def copy(self, source: Output, name: str, guard: Guard | None = None) -> None:
        if source.bytes > _MOST_COPIED_BYTES:
            super().copy(source, name, guard)
            return
        for _ in range(MAX_GUARDED_TRIES):
            before, copied = self._etag(name), self._etag(source.name)
            if copied is None:
                raise MissingFileError(f"cannot copy {self.uri(source.name)}: it does not exist")
            if guard is not None:
                guard()
                if self._etag(name) != before:  # many servers ignore the conditions of a copy
                    continue
            place: Any = {"Bucket": self._bucket, "Key": self._key(source.name)}
            put = partial(self._client.copy_object, CopySource=place, CopySourceIfMatch=copied)
            with storage_errors("write", self.uri(name)):
                try:
                    self._if_unchanged(name, before, lambda target, put=put: put(**target))  # type: ignore[misc]
                except ChangedError:
                    continue
            return
        raise self._changed(name)

    def _etag(self, name: str) -> str | None:
        with storage_errors("look up", self.uri(name)):
            try:
                return retried(
                    lambda: self._client.head_object(Bucket=self._bucket, Key=self._key(name))["ETag"]
                )
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in NOT_THERE:
                    return None
                raise

    def _if_unchanged(self, name: str, etag: str | None, put: Callable[[dict[str, Any]], object]) -> None:
        """Call `put` with the object's address and the condition that its ETag is still this one.

        Uses conditional writes, https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html;
        on a server without them, checks right before writing. Raises ChangedError.
        """
        address = {"Bucket": self._bucket, "Key": self._key(name)}
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            retried(lambda: put(address | condition))
        except self._client.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code in _NOT_AS_READ:
                raise self._changed(name) from error
            if code != "NotImplemented":
                raise
            if self._etag(name) != etag:
                raise self._changed(name) from error
            retried(lambda: put(address))

    def open(self, name: str) -> BinaryIO:
        def fetch() -> BinaryIO:
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
            try:
                self._fetch(name, spool)
            except BaseException:
                spool.close()
                raise
            spool.seek(0)
            return cast("BinaryIO", spool)

        with storage_errors("read", self.uri(name)):
            return retried(fetch)

    def _fetch(self, name: str, spool: Any) -> None:
        """Write an object to a file: a small one with one request, a large one by ranges side by side."""
        from laion_etl.io.storage.s3_answers import BoundedFile

        place: Any = {"Bucket": self._bucket, "Key": self._key(name)}
        size = self._client.head_object(**place)["ContentLength"]
        if size <= _AT_ONCE_BYTES:
            spool.write(self._get(name, _AT_ONCE_BYTES)[0])  # it may have been written again since
        else:
            self._client.download_fileobj(**place, Fileobj=cast("IO[bytes]", BoundedFile(spool, size)))

    def read(self, name: str) -> bytes:
        """Read the whole file with one request: `open` asks for its size first."""
        with storage_errors("read", self.uri(name)):
            data, _ = retried(lambda: self._get(name))
            return data

    def read_with_age(self, name: str) -> tuple[bytes, float]:
        with storage_errors("read", self.uri(name)):
            return retried(lambda: self._get_with_age(name))

    def _get_with_age(self, name: str) -> tuple[bytes, float]:
        found = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
        date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else found["LastModified"]  # servers without a clock
        return self._body(name, found), (now - found["LastModified"]).total_seconds()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        wanted = f"bytes={offset}-{offset + size - 1}"
        with storage_errors("read", self.uri(name)):
            data, _ = retried(lambda: self._get(name, size, Range=wanted))
            return data

    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        with storage_errors("read", self.uri(name)):
            try:
                return retried(lambda: self._get(name))
            except self._client.exceptions.NoSuchKey:
                return None

    def _get(self, name: str, most: int | None = None, **options: Any) -> tuple[bytes, str]:
        found = self._client.get_object(Bucket=self._bucket, Key=self._key(name), **options)
        start = options.get("Range", "").partition("-")[0].replace("=", " ")
        if start and not found.get("ContentRange", "").startswith(f"{start}-"):
            found["Body"].close()
            raise ValueError("it is another part of the file")
        return self._body(name, found, most), found["ETag"]

    def _body(self, name: str, found: Any, most: int | None = None) -> bytes:
        from laion_etl.io.storage.s3_answers import body_of

        return body_of(found, usable_memory_bytes() // 2 if most is None else most, self.uri(name))

    def status(self, name: str) -> str | None:
        return self._etag(name)

    def swap(self, name: str, data: bytes, etag: str | None) -> Output:
        with storage_errors("write", self.uri(name)):
            try:
                self._if_unchanged(
                    name, etag, lambda condition: self._client.put_object(Body=data, **condition)
                )
            except ChangedError:
                found = self.read_with_etag(name)
                if found is None or found[0] != data:
                    raise  # else it is our own write, whose first answer was lost
        return Output.from_bytes(name, data)

    def exists(self, name: str) -> bool:
        return self._etag(name) is not None

    def folders(self, prefix: str) -> list[str]:
        with storage_errors("list", self.uri(prefix)):
            found = [
                entry["Prefix"]
                for page in pages(self._client, self._folder(prefix) | {"Delimiter": "/"})
                for entry in page.get("CommonPrefixes", [])
            ]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def list(self, prefix: str) -> list[str]:
        return sorted(self.etags(prefix, ""))

    def etags(self, prefix: str, ending: str) -> dict[str, str]:
        with storage_errors("list", self.uri(prefix)):
            return {
                entry["Key"].removeprefix(self._prefix): entry["ETag"]
                for page in pages(self._client, self._folder(prefix))
                for entry in page.get("Contents", [])
                if entry["Key"].endswith(ending)
            }

    def files(self, folder: str, first: str = "", last: str = "") -> Iterator[ListedFile]:
        address = self._folder(folder) | {"Delimiter": "/"}
        prefix = address["Prefix"]
        # S3 lists what comes after StartAfter, and `first` itself is wanted, too.
        after = {"StartAfter": prefix + first[:-1]} if first else {}
        with storage_errors("list", self.uri(folder)):
            for page in pages(self._client, address | after):
                for entry in page.get("Contents", []):
                    name = entry["Key"].removeprefix(prefix)
                    if last and name >= last:
                        return
                    if name >= first:
                        yield ListedFile(f"{folder}/{name}", entry["ETag"], entry["Size"])

    def _folder(self, prefix: str) -> dict[str, Any]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        return {"Bucket": self._bucket, "Prefix": self._key(folder)}

    def delete(self, name: str) -> None:
        with storage_errors("delete", self.uri(name)):
            retried(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(name)))

    def check(self) -> None:
        with storage_errors("write", self.uri()):
            retried(lambda: self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1))


@cache
def s3_client() -> "S3Client":
    """Returns the S3 client of this process; boto3 reads region, endpoint and credentials as usual."""
    import boto3
    from botocore.config import Config

    from laion_etl.io.storage.s3_answers import checked

    return checked(counted(boto3.client("s3", config=Config(**_S3_CONFIG))))


@cache
def s3_reader() -> "S3Client":
    """Returns the client for public data: without credentials it reads public buckets anonymously.

    It repeats nothing itself: io/retries.py does, as a source wants it and within the limit of its requests.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    from laion_etl.io.storage.s3_answers import checked

    session = boto3.Session()
    options = _S3_CONFIG | {"retries": {"total_max_attempts": 1}}
    if session.get_credentials() is not None:
        return checked(session.client("s3", config=Config(**options)))
    region = session.region_name or "us-east-1"  # Common Crawl's
    return checked(session.client("s3", region, config=Config(**options, signature_version=UNSIGNED)))
