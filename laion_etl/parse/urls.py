"""Which image URLs are acceptable, and what they are absolutely, by the WHATWG URL standard (ada).

The limits are the original's: http(s) only, length of URL and host, no .svg and .gif.
"""

from functools import lru_cache

import ada_url
import tldextract

from laion_etl.funnel import ParseReason
from laion_etl.settings import ParseSettings

# No URLs: the public suffix list shipped with the package, nothing fetched at run time.
_extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def page_base(page_url: str, base: str | None) -> str:
    """What relative URLs of a page resolve against: `Head.Base`, itself relative to the page URL."""
    if not base:
        return page_url
    try:
        return ada_url.join_url(page_url, base)
    except ValueError:
        return page_url


def image_url(raw: str, base: str, settings: ParseSettings) -> str | ParseReason:
    """The absolute URL of an image link, without fragment, or the reason why it is out."""
    if len(raw) > 2 * settings.max_url_chars:
        return ParseReason.URL_TOO_LONG
    try:
        url = ada_url.URL(raw, base=base)
    except ValueError:
        return ParseReason.URL_INVALID
    if url.protocol not in ("http:", "https:"):
        return ParseReason.URL_SCHEME
    if url.username or url.password:
        return ParseReason.URL_INVALID
    if url.pathname.lower().endswith(settings.refused_extensions):
        return ParseReason.URL_EXTENSION
    if len(url.hostname) > settings.max_host_chars:
        return ParseReason.HOST_TOO_LONG
    url.hash = ""
    if len(url.href) > settings.max_url_chars:
        return ParseReason.URL_TOO_LONG
    return str(url.href)


@lru_cache(maxsize=100_000)
def registered_domain(host: str) -> str:
    """`example.co.uk` of `img.example.co.uk`; the host itself when it has none (addresses, bare names)."""
    return _extract(host).top_domain_under_public_suffix or host


def host_of(url: str) -> str:
    """Host of an absolute http(s) URL, without port."""
    return str(ada_url.URL(url).hostname)
