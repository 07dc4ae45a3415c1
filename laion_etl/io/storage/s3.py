"""A store in a bucket: files are spooled to local disk and sent in one upload."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from laion_etl.core.stage_stats import Output
from laion_etl.io.storage.errors import storage_errors
from laion_etl.io.storage.store import NewFile, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_S3_CONFIG: dict[str, Any] = {"retries": {"max_attempts": 5, "mode": "standard"}, "connect_timeout": 10}
_NOT_AS_READ = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409")


class S3Store(Store):
    """A prefix in a bucket, through boto3 (AWS_ENDPOINT_URL and the usual credentials are honoured)."""

    def __init__(self, bucket: str, prefix: str, client: "S3Client") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client

    def uri(self, name: str = "") -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    @contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        with tempfile.TemporaryFile() as spool:
            yield NewFile(name, spool, self.uri(name))
            with storage_errors("write", self.uri(name)):
                spool.seek(0)
                self._client.upload_fileobj(spool, self._bucket, self._prefix + name)

    def open(self, name: str) -> BinaryIO:
        with storage_errors("read", self.uri(name)):
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
            try:
                self._client.download_fileobj(self._bucket, self._prefix + name, spool)
            except BaseException:
                spool.close()
                raise
            spool.seek(0)
            return cast("BinaryIO", spool)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        wanted = f"bytes={offset}-{offset + size - 1}"
        with storage_errors("read", self.uri(name)):
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range=wanted)
            return found["Body"].read()

    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        with storage_errors("read", self.uri(name)):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            except self._client.exceptions.NoSuchKey:
                return None
            return found["Body"].read(), found["ETag"]

    def swap(self, name: str, data: bytes, etag: str | None) -> Output:
        """Uses conditional writes, https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html;
        on a server without them, checks right before writing."""
        condition: Any = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        put = partial(self._client.put_object, Bucket=self._bucket, Key=self._prefix + name, Body=data)
        with storage_errors("write", self.uri(name)):
            try:
                put(**condition)
            except self._client.exceptions.ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code in _NOT_AS_READ:
                    raise self._changed(name) from error
                if code != "NotImplemented":
                    raise
                self._check_etag(name, etag)
                put()
        return Output.from_bytes(name, data)

    def exists(self, name: str) -> bool:
        with storage_errors("look up", self.uri(name)):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey", "NotFound"}:
                    return False
                raise
            return True

    def folders(self, prefix: str) -> list[str]:
        with storage_errors("list", self.uri(prefix)):
            pages = list(self._pages(prefix, Delimiter="/"))
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def list(self, prefix: str) -> list[str]:
        return sorted(self.etags(prefix, ""))

    def etags(self, prefix: str, ending: str) -> dict[str, str]:
        with storage_errors("list", self.uri(prefix)):
            entries = [e for page in self._pages(prefix) for e in page.get("Contents", [])]
        etags = {e["Key"].removeprefix(self._prefix): e["ETag"] for e in entries}
        return {name: etag for name, etag in etags.items() if name.endswith(ending)}

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:
        folder = self._prefix + (f"{prefix.strip('/')}/" if prefix.strip("/") else "")
        pages = self._client.get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=self._bucket, Prefix=folder, **options)

    def delete(self, name: str) -> None:
        with storage_errors("delete", self.uri(name)):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def check(self) -> None:
        with storage_errors("write", self.uri()):
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)


@cache
def s3_client() -> "S3Client":
    """Returns the S3 client of this process; boto3 reads region, endpoint and credentials as usual."""
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(**_S3_CONFIG))


@cache
def s3_reader() -> "S3Client":
    """Returns the client for public data: without credentials it reads public buckets anonymously."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    if session.get_credentials() is not None:
        return s3_client()
    region = session.region_name or "us-east-1"  # Common Crawl's
    return boto3.client("s3", region, config=Config(**_S3_CONFIG, signature_version=UNSIGNED))
