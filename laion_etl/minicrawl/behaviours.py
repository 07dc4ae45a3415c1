"""What the servers of the mini crawl do with a link, good and bad, and how the link must end.

`BAD_LINKS` and `BAD_ADDRESSES` are the ground truth: one line per behaviour. The outcomes hold for the
downloader's default settings; link timeouts may be shortened down to 2 s.
"""

from dataclasses import dataclass
from enum import StrEnum

from laion_etl.core.funnel import DownloadStatus
from laion_etl.minicrawl.drawn_images import DrawnImage, Form

SITES = "minicrawl.example"
SHOPS = "minicrawl-shop.example"
MEMBERS = "/members"  # the folder that robots.txt forbids
CLOSED = "minicrawl-closed.example"  # mapped to a port on which nothing listens


class Behaviour(StrEnum):
    """How a server answers."""

    IMAGE = "image"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"  # no length: the body ends with the connection
    REDIRECT = "redirect"
    NO_AI = "no_ai"
    NO_IMAGE_AI = "no_image_ai"
    TDM_RESERVED = "tdm_reserved"  # by a header
    NO_DATA_MINING = "no_data_mining"  # stated in the metadata of the image
    ROBOTS_TXT = "robots_txt"  # the rules of a host, which forbid MEMBERS
    NOT_FOUND = "not_found"
    GONE = "gone"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    EMPTY = "empty"
    TRUNCATED = "truncated"  # half a file, announced as such
    CUT_OFF = "cut_off"  # half of the announced length
    HTML = "html"  # a web page labelled image/jpeg
    PIXEL_BOMB = "pixel_bomb"
    GZIP_BOMB = "gzip_bomb"
    ENDLESS = "endless"
    SLOW = "slow"  # a few bytes a second
    SILENT = "silent"  # never answers
    NOT_HTTP = "not_http"


# Those that send at least a part of their image.
SHOWING = {
    Behaviour.IMAGE,
    Behaviour.CHUNKED,
    Behaviour.UNTIL_CLOSE,
    Behaviour.NO_AI,
    Behaviour.NO_IMAGE_AI,
    Behaviour.TDM_RESERVED,
    Behaviour.NO_DATA_MINING,
    Behaviour.TRUNCATED,
    Behaviour.CUT_OFF,
    Behaviour.SLOW,
}


@dataclass(frozen=True, slots=True)
class Resource:
    """What a URL leads to: an image for those that show one, a location for redirects."""

    behaviour: Behaviour
    image: DrawnImage | None = None
    location: str = ""


@dataclass(frozen=True, slots=True)
class BadLink:
    """A kind of link that fails, how often it is in the crawl, and its form and size where they matter."""

    behaviour: Behaviour
    status: DownloadStatus
    count: int
    location: str = ""
    form: Form = Form.JPEG
    side: int = 240
    folder: str = ""


BAD_LINKS: tuple[BadLink, ...] = (
    BadLink(Behaviour.NOT_FOUND, DownloadStatus.HTTP_ERROR, 40),
    BadLink(Behaviour.GONE, DownloadStatus.HTTP_ERROR, 12),
    BadLink(Behaviour.SERVER_ERROR, DownloadStatus.HTTP_ERROR, 8),
    BadLink(Behaviour.UNAVAILABLE, DownloadStatus.HTTP_ERROR, 6),
    BadLink(Behaviour.NO_AI, DownloadStatus.OPTED_OUT_ROBOTS_TAG, 8),
    BadLink(Behaviour.NO_IMAGE_AI, DownloadStatus.OPTED_OUT_ROBOTS_TAG, 8),
    BadLink(Behaviour.TDM_RESERVED, DownloadStatus.OPTED_OUT_TDM, 6),
    BadLink(Behaviour.NO_DATA_MINING, DownloadStatus.OPTED_OUT_METADATA, 6),
    BadLink(Behaviour.IMAGE, DownloadStatus.OPTED_OUT_ROBOTS_TXT, 10, folder=MEMBERS),
    BadLink(Behaviour.EMPTY, DownloadStatus.TOO_FEW_BYTES, 6),
    BadLink(Behaviour.IMAGE, DownloadStatus.TOO_FEW_BYTES, 24, side=64),
    BadLink(Behaviour.TRUNCATED, DownloadStatus.DECODE_FAILED, 6),
    BadLink(Behaviour.TRUNCATED, DownloadStatus.DECODE_FAILED, 3, form=Form.PNG),
    BadLink(Behaviour.CUT_OFF, DownloadStatus.BAD_RESPONSE, 8),
    BadLink(Behaviour.NOT_HTTP, DownloadStatus.BAD_RESPONSE, 5),
    BadLink(Behaviour.HTML, DownloadStatus.NOT_AN_IMAGE, 16),
    BadLink(Behaviour.IMAGE, DownloadStatus.FORMAT_REFUSED, 6, form=Form.ANIMATED_GIF),
    BadLink(Behaviour.IMAGE, DownloadStatus.FORMAT_REFUSED, 3, form=Form.BMP),
    BadLink(Behaviour.IMAGE, DownloadStatus.ANIMATED, 4, form=Form.ANIMATED_WEBP),
    BadLink(Behaviour.PIXEL_BOMB, DownloadStatus.TOO_MANY_PIXELS, 4, form=Form.PNG),
    BadLink(Behaviour.GZIP_BOMB, DownloadStatus.NOT_AN_IMAGE, 3),
    BadLink(Behaviour.ENDLESS, DownloadStatus.TOO_MANY_BYTES, 4),
    BadLink(Behaviour.SLOW, DownloadStatus.TIMEOUT, 5),
    BadLink(Behaviour.SILENT, DownloadStatus.TIMEOUT, 4),
    BadLink(Behaviour.REDIRECT, DownloadStatus.TOO_MANY_REDIRECTS, 5, location="/loop/a"),
    BadLink(Behaviour.REDIRECT, DownloadStatus.ADDRESS_REFUSED, 4, location="http://10.0.0.8/admin.jpg"),
    BadLink(Behaviour.REDIRECT, DownloadStatus.ADDRESS_REFUSED, 3, location="//169.254.169.254/latest/"),
    BadLink(Behaviour.REDIRECT, DownloadStatus.URL_INVALID, 3, location="file:///etc/passwd"),
)

BAD_ADDRESSES: tuple[tuple[str, DownloadStatus, int], ...] = (
    ("http://gone.invalid/images/{n}.jpg", DownloadStatus.DNS_FAILED, 12),
    ("http://www.expired-domain.invalid/{n}.jpg", DownloadStatus.DNS_FAILED, 6),
    (f"http://photos.{SITES}:8081/{{n}}.jpg", DownloadStatus.PORT_REFUSED, 5),
    (f"http://photos.{SITES}:22/{{n}}.jpg", DownloadStatus.PORT_REFUSED, 2),
    (f"http://img.{CLOSED}/{{n}}.jpg", DownloadStatus.CONNECT_FAILED, 5),
    (f"https://photos.{SITES}/secure/{{n}}.jpg", DownloadStatus.TLS_FAILED, 5),  # the server speaks no TLS
)
