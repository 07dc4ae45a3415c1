"""The pages of the generated WAT file as HTML in a WARC file, for timing the source `warc`.

    python -m benchmarks.warc_file PATH [PAGES]

Each page has the head, links and images of its WAT record, and paragraphs, classes and scripts around them up
to the size of a page of the web (67 kB on average). One image in seven is loaded by a script, one in ten has
a srcset, one in twelve is in a figure. Seeded: the same arguments give the same bytes.
"""

import gzip
import random
import sys
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.wat_file import page_site, response_metadata

_FILLER = [f'<div class="c{n} col-md-{n % 12}" data-id="{n}"><span></span></div>\n' for n in range(40)]
_SCRIPT = "<script>window.dataLayer=window.dataLayer||[];" + "var a={b:1,c:'x'};" * 400 + "</script>"


def write_warc(path: Path, pages: int, seed: int = 0) -> None:
    """Writes the file; about 14 kB a page, gzipped."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.write(gzip.compress(_record("warcinfo", "", b"software: benchmark\r\n"), 6, mtime=0))
        site, left = page_site(rng), 0
        for number in range(pages):
            if not left:
                site, left = page_site(rng), rng.choices((1, 2, 5), (80, 15, 5))[0]
            left -= 1
            url = f"https://{site.host}/{number}.html"
            html = response_metadata(rng, site)["HTML-Metadata"]
            body = _html(rng, html, site.words).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=UTF-8\r\n"
            request = f"GET /{number}.html HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode()
            for kind, payload in (("request", request), ("response", head + b"\r\n" + body)):
                file.write(gzip.compress(_record(kind, url, payload), 6, mtime=0))


def _record(kind: str, url: str, payload: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        "WARC-Date: 2026-10-21T02:08:41Z\r\nWARC-Record-ID: <urn:uuid:668d88fc-4208-41fc-b327-1aa6cb783331>"
        "\r\n"
        f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload + b"\r\n\r\n"


def _html(rng: random.Random, html: dict[str, Any], words: list[str]) -> str:
    metas = "".join(f"<meta {_attributes(meta)}>\n" for meta in html["Head"]["Metas"])
    base = f'<base href="{html["Head"]["Base"]}">' if "Base" in html["Head"] else ""
    parts = [f"<!doctype html><html lang=en><head>{base}{metas}{_SCRIPT}</head><body>"]
    for link in html["Links"]:
        parts.append(_element(rng, link))
        if rng.random() < 0.3:
            parts.append(f"<p class=text>{' '.join(rng.choices(words, k=60))}</p>\n")
            parts += _FILLER[: rng.randrange(len(_FILLER))]
    return "".join([*parts, "</body></html>"])


def _element(rng: random.Random, link: dict[str, str]) -> str:
    texts = {name: text for name, text in link.items() if name not in ("path", "url", "text")}
    url, chance = escape(link["url"]), rng.random()
    if link["path"] != "IMG@/src":
        return (
            f'<li class="item"><a href="{url}" {_attributes(texts)}>{escape(link.get("text", ""))}</a></li>\n'
        )
    if chance < 1 / 7:
        place = f'src="data:image/gif;base64,R0lGODlhAQAB" data-src="{url}"'
    elif chance < 1 / 7 + 1 / 10:
        place = f'src="{url}" srcset="{url} 320w, {url}?w=640 640w"'
    else:
        place = f'src="{url}"'
    image = f"<img {place} {_attributes(texts)}>"
    return (
        f"<figure>{image}<figcaption>A caption of it</figcaption></figure>\n" if chance > 11 / 12 else image
    )


def _attributes(texts: dict[str, str]) -> str:
    return " ".join(f'{name}="{escape(text)}"' for name, text in texts.items())


if __name__ == "__main__":
    write_warc(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2_000)
