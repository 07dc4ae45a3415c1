"""Uploads that S3 makes visible only on a condition (If-Match, If-None-Match): boto3's own have none."""

from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SINGLE_BYTES = 64 << 20  # up to here in one request
_PART_BYTES = 32 << 20  # held in memory; 10,000 of them are the largest upload


def upload_if(client: "S3Client", file: IO[bytes], target: dict[str, Any]) -> None:
    """Upload a file from its beginning. `target`: Bucket, Key, and IfMatch or IfNoneMatch.

    Raises ClientError with code PreconditionFailed where the condition does not hold.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size <= _SINGLE_BYTES:
        client.put_object(Body=file, **target)
    else:
        _in_parts(client, file, target)


def _in_parts(client: "S3Client", file: IO[bytes], target: dict[str, Any]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    address = {name: target[name] for name in ("Bucket", "Key")}
    upload = address | {"UploadId": client.create_multipart_upload(**address)["UploadId"]}
    parts: list[Any] = []
    try:
        while data := file.read(_PART_BYTES):
            number = len(parts) + 1
            etag = client.upload_part(**upload, PartNumber=number, Body=data)["ETag"]
            parts.append({"ETag": etag, "PartNumber": number})
        condition = {name: value for name, value in target.items() if name not in address}
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:
        with suppress(BotoCoreError, ClientError):  # the bucket's rules remove what is left
            client.abort_multipart_upload(**upload)
        raise
