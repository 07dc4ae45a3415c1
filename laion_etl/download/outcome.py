"""How a link ends: with image bytes, or with a reason raised from wherever it was found."""

from laion_etl.funnel import DownloadStatus


class LinkFailed(Exception):  # noqa: N818 - an outcome that is counted, not an error of the program
    """The link ends here. `message` is short and stable: no addresses, ports or times that vary by run."""

    def __init__(self, status: DownloadStatus, message: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
