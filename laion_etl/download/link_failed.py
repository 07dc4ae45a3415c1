"""How a link ends: with image bytes, or with a reason raised from wherever it was found."""

from laion_etl.funnel import DownloadStatus


class LinkFailed(Exception):  # noqa: N818 - an outcome that is counted, not an error of the program
    """The link ends here, or is tried again.

    `message` is short and stable: no addresses, ports or times that vary by run. `retry_after_s` is how long
    the server asked to be left alone.
    """

    def __init__(self, status: DownloadStatus, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    def again(self) -> "LinkFailed":
        """The same outcome for another link: an exception is raised once."""
        return LinkFailed(self.status, self.message)
