"""The pages of a listing. The server may be another's: they end, and hold only what was asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from laion_etl.core.quantities import quantity
from laion_etl.io.storage.s3_retry import retried

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MAX_NAMES = 50_000_000  # a crawl has a tenth of it
_MAX_EMPTY_PAGES = 10_000  # in a row: a bucket of many versions that were deleted has some


def pages(client: "S3Client", address: dict[str, Any]) -> Iterator[Any]:
    """Yield the pages of a listing. `address`: Bucket, Prefix and other arguments of list_objects_v2."""
    request, names, empty = address, 0, 0
    while True:
        page = retried(lambda request=request: _page(client, request))  # type: ignore[misc]
        yield page
        if not page["IsTruncated"]:
            return
        request = {name: value for name, value in address.items() if name != "StartAfter"}
        request["ContinuationToken"] = page["NextContinuationToken"]
        found = len(page.get("Contents", ())) + len(page.get("CommonPrefixes", ()))
        names, empty = names + found, 0 if found else empty + 1
        if names > _MAX_NAMES or empty > _MAX_EMPTY_PAGES:
            retried(_endless)


def _page(client: "S3Client", request: dict[str, Any]) -> Any:
    """Raises ValueError or KeyError for a page that is not as S3 has it."""
    page: Any = client.list_objects_v2(**request)
    prefix = request["Prefix"]
    entries = page.get("Contents", ())
    named = [entry["Key"] for entry in entries] + [one["Prefix"] for one in page.get("CommonPrefixes", ())]
    if not all(name.startswith(prefix) for name in named):
        raise ValueError(f"it lists names outside {prefix}")
    if not all("ETag" in entry and "Size" in entry for entry in entries):
        raise ValueError("it lists files without ETag or size")
    if page["IsTruncated"] and page["NextContinuationToken"] in ("", request.get("ContinuationToken")):
        raise ValueError("its next page is the same one")
    return page


def _endless() -> None:
    raise ValueError(f"the listing does not end after {quantity(_MAX_NAMES, 'name')}")
