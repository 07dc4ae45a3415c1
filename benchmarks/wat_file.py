"""A generated WAT file with the proportions of a real one, for timing the parser.

    python -m benchmarks.wat_file PATH [PAGES]

Records are shaped as ia-web-commons writes them: three metadata records a page, each a gzip member, of which
the one of the response holds headers, metas, links to pages with their texts, and images. Sites have a
template (navigation, logo, icons) that repeats on each of their pages. About three in ten images have no alt
text and two an empty one; of the others one in eight is a placeholder, one in twenty holds what needs repair
(curly quotes, entities, mojibake, white space), half are in other languages than English. One page in fifty
has a base, one in a hundred a Creative Commons link. Seeded: the same arguments give the same bytes.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LINES = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").splitlines()
_WORDS = {line[:2]: line[3:].split() for line in _LINES if not line.startswith("#")}
_LANGUAGES = random.Random(0).choices(list(_WORDS), (46, 9, 7, 8, 5, 9, 4, 5, 5, 2), k=1000)
_TOP_LEVELS = random.Random(1).choices(
    ("com", "org", "net", "de", "ru", "co.uk", "fr", "jp", "pl", "com.br", "info", "es", "nl"),
    (46, 8, 6, 7, 7, 4, 4, 4, 4, 3, 3, 2, 2),
    k=1000,
)
_PLACEHOLDERS = (
    "logo",
    "image",
    "Logo",
    "photo",
    "IMG_{n}.JPG",
    "DSC0{n}",
    "image-{n}.png",
    "banner",
    "{n}",
    "2019-03-12",
    "thumbnail",
    "5f2{n}c9a7e1b04d2",
    "icon",
    "slide {n}",
    "Image not available",
)
_REPAIRS = (
    "{t}’s {t}",
    "“{t}”",
    "{t} &amp; {t}",
    "{t}\u00a0{t}",
    "  {t}\n   {t}",
    "{t} Ã© {t}",
    "{t} – {t}…",
    "{t} & {t}",
    "<b>{t}</b> {t}",
    "É{t} {t}",
)


@dataclass(frozen=True, slots=True)
class _Site:
    """The parts that all pages of a site share."""

    host: str
    words: list[str]
    navigation: list[dict[str, str]]
    images: list[dict[str, str]]
    uploads: str


def write_wat(path: Path, pages: int, seed: int = 0) -> None:
    """Writes the file; about 6 kB a page, gzipped."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.write(
            _member("warcinfo", "", b"Software-Info: benchmark\r\nformat: WARC File Format 1.0\r\n\r\n")
        )
        site, left = page_site(rng), 0
        for number in range(pages):
            if not left:
                site, left = page_site(rng), rng.choices((1, 2, 5), (80, 15, 5))[0]
            left -= 1
            for record in _page(rng, site, number):
                file.write(record)


def page_site(rng: random.Random) -> _Site:
    """Returns a site with its template."""
    words = _WORDS[rng.choice(_LANGUAGES)]
    name = f"{rng.choice(_WORDS['en'])}-{rng.choice(_WORDS['en'])}{rng.randrange(100_000)}"
    host = f"{rng.choice(('www.', 'www.', '', 'shop.', 'blog.'))}{name}.{rng.choice(_TOP_LEVELS)}"
    uploads = rng.choice(
        (
            f"https://{host}/wp-content/uploads/20{rng.randrange(10, 26)}/{rng.randrange(1, 13):02}/",
            "/images/",
            "images/",
            f"//cdn.{host}/media/",
            f"https://img{rng.randrange(9)}.{name}.{rng.choice(_TOP_LEVELS)}/",
            "../img/",
            "/media/catalog/",
        )
    )
    navigation = [_anchor(rng, words, "/") for _ in range(rng.randrange(10, 60))]
    images = [
        {"path": "IMG@/src", "url": f"{uploads}logo.png", "alt": rng.choice((name, "logo", f"{name} logo"))}
    ]
    images += [
        {"path": "IMG@/src", "url": f"{uploads}icons/{_slug(rng, 1)}.{rng.choice(('svg', 'png', 'gif'))}"}
        for _ in range(3)
    ]
    return _Site(host, words, navigation, images, uploads)


def _page(rng: random.Random, site: _Site, number: int) -> Iterator[bytes]:
    url = f"https://{site.host}/{_slug(rng, 2)}/{_slug(rng, 4)}-{number}.html"
    request_headers = {
        "User-Agent": "CCBot/2.0 (https://commoncrawl.org/faq/)",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Encoding": "br,gzip",
        "Host": site.host,
        "Connection": "Keep-Alive",
    }
    request = {
        "Request-Message": {"Method": "GET", "Path": url, "Version": "HTTP/1.1"},
        "Headers-Length": "263",
        "Headers": request_headers,
        "Entity-Length": "0",
        "Entity-Digest": _digest(rng),
    }
    fetch = {
        "Metadata-Records": [
            {"Name": "fetchTimeMs", "Value": str(rng.randrange(2000))},
            {"Name": "charset-detected", "Value": "UTF-8"},
            {"Name": "languages-cld2", "Value": '{"reliable":true,"text-bytes":2107}'},
        ]
    }
    yield _record(rng, "request", url, number, {"HTTP-Request-Metadata": request})
    yield _record(rng, "response", url, number, {"HTTP-Response-Metadata": response_metadata(rng, site)})
    yield _record(rng, "metadata", url, number, {"WARC-Metadata-Metadata": fetch})


def _record(rng: random.Random, kind: str, url: str, number: int, metadata: dict[str, Any]) -> bytes:
    header = {
        "WARC-Type": kind,
        "WARC-Date": "2026-10-21T02:08:41Z",
        "WARC-Record-ID": _record_id(rng),
        "Content-Length": str(rng.randrange(300, 90_000)),
        "Content-Type": f"application/http; msgtype={kind}",
        "WARC-Warcinfo-ID": "<urn:uuid:668d88fc-4208-41fc-b327-1aa6cb783331>",
        "WARC-Concurrent-To": _record_id(rng),
        "WARC-IP-Address": f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}.7",
        "WARC-Target-URI": url,
        "WARC-Payload-Digest": _digest(rng),
        "WARC-Block-Digest": _digest(rng),
    }
    gzip_metadata = {
        "Deflate-Length": str(rng.randrange(99_999)),
        "Header-Length": "10",
        "Footer-Length": "8",
        "Inflated-CRC": str(rng.getrandbits(31)),
        "Inflated-Length": str(rng.randrange(99_999)),
    }
    payload = {
        "Container": {
            "Filename": "CC-MAIN-20261021020841-20261021050841-00000.warc.gz",
            "Compressed": True,
            "Offset": str(number * 27_181),
            "Gzip-Metadata": gzip_metadata,
        },
        "Envelope": {
            "Payload-Metadata": {
                "Actual-Content-Type": f"application/http; msgtype={kind}",
                **metadata,
                "Actual-Content-Length": "265",
                "Block-Digest": _digest(rng),
            },
            "Format": "WARC/1.0",
            "WARC-Header-Length": "357",
            "WARC-Header-Metadata": header,
        },
    }
    return _member("metadata", url, json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def response_metadata(rng: random.Random, site: _Site) -> dict[str, Any]:
    """Returns what the extractor has of a page of a site."""
    metas = [{"name": "viewport", "content": "width=device-width, initial-scale=1"}]
    metas += [{"name": name, "content": _text(rng, site.words, 14)} for name in ("description", "keywords")]
    metas += [
        {"property": f"og:{name}", "content": _text(rng, site.words, 6)}
        for name in ("title", "site_name", "type")
    ]
    styles = [
        {
            "path": "LINK@/href",
            "url": f"/wp-content/themes/{_slug(rng, 1)}/style.css?ver=6.{n}",
            "rel": "stylesheet",
            "type": "text/css",
        }
        for n in range(rng.randrange(2, 10))
    ]
    scripts = [
        {
            "path": "SCRIPT@/src",
            "url": f"/wp-includes/js/{_slug(rng, 2)}.min.js?ver=3.{n}",
            "type": "text/javascript",
        }
        for n in range(rng.randrange(2, 14))
    ]
    head: dict[str, Any] = {
        "Metas": metas,
        "Title": _text(rng, site.words, 8),
        "Link": styles,
        "Scripts": scripts,
    }
    if rng.random() < 0.02:
        head["Base"] = f"https://{site.host}/{_slug(rng, 1)}/"
    content = [
        _anchor(rng, site.words, f"/{_slug(rng, 1)}/")
        for _ in range(min(400, int(rng.lognormvariate(3.4, 0.9))))
    ]
    images = [_image(rng, site) for _ in range(min(200, int(rng.lognormvariate(1.8, 0.9))))]
    images += rng.choices(images, k=len(images) // 12) if images else []  # shown twice
    if rng.random() < 0.01:
        content.append(
            {
                "path": "A@/href",
                "url": "https://creativecommons.org/licenses/by-sa/4.0/deed.de",
                "rel": "license",
            }
        )
    for image in images:
        content.insert(rng.randrange(len(content) + 1), image)
    headers = {
        "Date": "Wed, 21 Oct 2026 02:08:41 GMT",
        "Content-Type": "text/html; charset=UTF-8",
        "Server": "nginx",
        "Vary": "Accept-Encoding",
        "X-Powered-By": "PHP/8.2.7",
        "Cache-Control": "max-age=600",
        "X-Crawler-Content-Encoding": "gzip",
        "Link": f'<https://{site.host}/wp-json/>; rel="https://api.w.org/"',
    }
    return {
        "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
        "Headers-Length": "412",
        "Headers": headers,
        "HTML-Metadata": {
            "Head": head,
            "Links": [*site.images, *site.navigation, *content, *site.navigation[:8]],
        },
        "Entity-Length": str(rng.randrange(9_000, 200_000)),
        "Entity-Digest": _digest(rng),
    }


def _anchor(rng: random.Random, words: list[str], folder: str) -> dict[str, str]:
    anchor = {
        "path": "A@/href",
        "url": f"{folder}{_slug(rng, rng.randrange(1, 6))}{rng.choice(('', '/', '.html'))}",
    }
    kind = rng.random()
    if kind < 0.15:
        anchor["title"] = _text(rng, words, 4)
    elif kind < 0.25:
        anchor |= {"target": "_blank", "rel": "noopener noreferrer"}
    return anchor | ({"text": _text(rng, words, rng.randrange(1, 7))} if kind < 0.9 else {})


def _image(rng: random.Random, site: _Site) -> dict[str, str]:
    ending = rng.choices(
        (".jpg", ".png", ".webp", ".jpeg", ".gif", ".svg", ".jpg?w=640&h=480"), (52, 18, 10, 4, 5, 5, 6)
    )[0]
    name = f"{_slug(rng, rng.randrange(1, 5))}-{rng.randrange(10_000)}"
    if rng.random() < 0.02:
        name = name.replace("-", "%20")
    link = {"path": "IMG@/src", "url": f"{site.uploads}{name}{ending}"}
    if rng.random() < 0.01:
        link["url"] = rng.choice(
            (
                "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==",
                "https://www.facebook.com/tr?id=1&noscript=1",
                "http://10.0.0.3/a.jpg",
                "/pixel.png",
            )
        )
    kind = rng.random()
    if kind < 0.3:
        return link
    link["alt"] = "" if kind < 0.5 else _alt(rng, site.words)
    if rng.random() < 0.2:
        link["title"] = _text(rng, site.words, 4)
    return link


def _alt(rng: random.Random, words: list[str]) -> str:
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(_PLACEHOLDERS).format(n=rng.randrange(1000, 10_000))
    text = _text(rng, words, rng.randrange(1, 12))
    return rng.choice(_REPAIRS).format(t=text) if kind < 0.17 else text


def _text(rng: random.Random, words: list[str], count: int) -> str:
    return " ".join(rng.choices(words, k=count))


def _slug(rng: random.Random, count: int) -> str:
    return "-".join(rng.choices(_WORDS["en"], k=count))


def _digest(rng: random.Random) -> str:
    return "sha1:" + "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=32))


def _record_id(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"<urn:uuid:{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}>"


def _member(kind: str, url: str, payload: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\n" + (f"WARC-Target-URI: {url}\r\n" if url else "")
    head += "WARC-Date: 2026-10-21T02:08:41Z\r\n"
    head += "WARC-Record-ID: <urn:uuid:3d3f4785-c69a-4f8c-968c-d23302c55ef4>\r\n"
    head += "WARC-Refers-To: <urn:uuid:292f457d-203c-42f2-a1b5-69a4dabefd4f>\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    return gzip.compress(head.encode() + payload + b"\r\n\r\n", 6, mtime=0)


if __name__ == "__main__":
    write_wat(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
