"""The exception that ends a link with a drop reason, raised wherever the reason is found."""

from laion_etl.core.funnel import DownloadStatus

IN_A_CIRCLE = "in a circle"  # message of too many redirects that lead back to what was requested


class LinkFailed(Exception):  # noqa: N818 - an outcome that is counted, not an error of the program
    """The link failed; the downloader may retry it.

    `message` is short and stable: it is stored with the row, so it has no addresses, ports or times that vary
    from run to run. `retry_after_s` is the wait that the server requested.
    """

    def __init__(self, status: DownloadStatus, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    def again(self) -> "LinkFailed":
        """Returns the same outcome for another link: an exception object is raised only once."""
        return LinkFailed(self.status, self.message)
