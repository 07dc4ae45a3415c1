"""Errors of files and of S3 as StorageError, with the URI and what to do."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from laion_etl.core.errors import MissingFileError, StorageError, StoreOutageError, StoreRefusedError
from laion_etl.core.one_line import one_line
from laion_etl.core.outages import is_outage, is_refusal

_FILE_FOR_FOLDER = "a file is where a folder must be; move it away, or set LAION_ETL_STORE to another folder"
_ADVICE = {
    errno.ENOSPC: "the disk is full; free space, or set LAION_ETL_STORE (or TMPDIR) to another disk",
    errno.EDQUOT: "the disk quota is used up; free space, or set LAION_ETL_STORE (or TMPDIR) to another disk",
    errno.EFBIG: "the file would be larger than allowed; raise the limit (ulimit -f)",
    errno.ENAMETOOLONG: "its name is too long for this file system; use shorter names",
    errno.EACCES: "no permission; check the owner of the folder or set LAION_ETL_STORE",
    errno.EROFS: "the file system is read-only; set LAION_ETL_STORE",
    errno.EMFILE: "this process has too many files open; raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many files open; raise its limit (sysctl fs.file-max)",
    errno.ENOTDIR: _FILE_FOR_FOLDER,
    errno.EEXIST: _FILE_FOR_FOLDER,
    errno.EISDIR: "it is a folder; move it away and run the stage that writes this file again",
    errno.ELOOP: "it is a link that leads out of the store; put the file itself there",
    errno.ENOENT: "it does not exist; was the stage before it run?",
}

_MAX_CHARS = 500
NOT_THERE = {"404", "NoSuchKey", "NotFound"}  # of one object; a missing bucket is another code
_NO_FOLDER = "the folder cannot be created; check LAION_ETL_STORE"

_S3_ADVICE = {
    "404": "it does not exist; was the stage before it run?",
    "NoSuchBucket": "no such bucket; create it or check LAION_ETL_STORE",
    "InvalidObjectState": "it is archived; restore it, or move it to a storage class that can be read",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "301": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "ExpiredToken": "the key has expired; renew the AWS credentials",
    "InvalidAccessKeyId": "no such key; check the AWS credentials",
    "SignatureDoesNotMatch": "wrong secret key; check the AWS credentials",
    "NoSuchKey": "it does not exist; was the stage before it run?",
    "403": "access refused; check the AWS credentials",
    "AccessDenied": "access refused; check the AWS credentials",
}


@contextmanager
def closed(file: IO[bytes]) -> Iterator[None]:
    """Close a file at the end of the block.

    If the block fails because the disk is full, closing tries to write the rest once more, and its error
    would take the place of the one that says what could not be written.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()


@contextmanager
def storage_errors(action: str, target: object) -> Iterator[None]:
    """Turn the errors of the file system and of S3 into StorageError.

    It is MissingFileError for one file that is not there, StoreOutageError or StoreRefusedError if nothing
    can be read or written.
    """
    try:
        yield
    except OSError as error:
        missing_folder = action == "write" and error.errno == errno.ENOENT
        missing_file = error.errno == errno.ENOENT and not missing_folder
        advice = _NO_FOLDER if missing_folder else _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise _kind(error, missing=missing_file)(f"cannot {action} {target}: {advice}") from error
    except Exception as error:
        if (found := _s3_error(action, target, error)) is None:
            raise
        raise found from error


def _s3_error(action: str, target: object, error: Exception) -> StorageError | None:
    """Return the error of a request to S3 in our words; None for any other error."""
    if "botocore" not in sys.modules:
        return None  # a local store: importing boto3 to look would take 0.2 s and 20 MB
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        missing = action == "read" and code in NOT_THERE
        return _kind(error, missing=missing)(
            f"cannot {action} {target}: {_S3_ADVICE.get(code, _line(error))}"
        )
    if isinstance(error, BotoCoreError | Boto3Error):
        advice = "check AWS_ENDPOINT_URL and the AWS credentials"
        return _kind(error)(f"cannot {action} {target}: {_line(error)}; {advice}")
    return None


def _line(error: Exception) -> str:
    """The error in one line, which does not fill a log: a server's words are in it."""
    return one_line(str(error)[:_MAX_CHARS])


def _kind(error: Exception, *, missing: bool = False) -> type[StorageError]:
    if missing:
        return MissingFileError
    if is_outage(error):
        return StoreOutageError
    return StoreRefusedError if is_refusal(error) else StorageError
