"""What the failure of a link means: whether it is tried again, and whether the network is too busy."""

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.http_head import is_passing
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.link_scheduler import PendingLink
from laion_etl.download.politeness import OriginState

_RETRIED_RESPONSES = frozenset({"connection broken", "cut off", "cut off in the head", "no answer"})


def is_crowding(failure: LinkFailed, state: OriginState) -> bool:
    """Whether a server that used to answer did not, which suggests that too many links are in flight."""
    slow = failure.status in (DownloadStatus.TIMEOUT, DownloadStatus.CONNECT_TIMEOUT)
    return slow and state.proven and failure.message != "total"


def is_worth_retrying(failure: LinkFailed, state: OriginState, link: PendingLink, retries: int) -> bool:
    """Whether another attempt at the link may succeed; counts it."""
    if state.failure is not None:
        return False
    if failure.status is DownloadStatus.RESOLVER_FAILED:
        return True  # until the limiter gives up the host
    if link.tries >= retries:
        return False
    link.tries += 1
    if failure.status is DownloadStatus.HTTP_ERROR:
        return is_passing(int(failure.message))
    if failure.status is DownloadStatus.BAD_RESPONSE:
        return failure.message in _RETRIED_RESPONSES
    return state.proven and failure.status in (
        DownloadStatus.CONNECT_FAILED,
        DownloadStatus.CONNECT_TIMEOUT,
    )
