"""A generated WAT file with the proportions of a real one, for timing the parser.

    python -m benchmarks.wat_file PATH [PAGES]

Three metadata records a page, each a gzip member; the response record holds headers, metas, some 80 anchors,
stylesheets and a dozen images, half of them without usable alt text, in several languages. Seeded.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TEXTS = {
    "en": "the red house on a hill with green trees and blue sky over quiet water near old town market",
    "de": "das rote Haus auf dem Hügel mit grünen Bäumen und blauem Himmel über stillem Wasser nahe",
    "fr": "la maison rouge sur la colline avec des arbres verts et un ciel bleu près de la vieille ville",
    "es": "la casa roja en la colina con árboles verdes y cielo azul sobre el agua cerca del mercado",
    "ru": "красный дом на холме с зелёными деревьями и синее небо над тихой водой рядом со старым городом",
    "ja": "赤い家 丘の上 緑の木 青い空 静かな水 古い町 市場 通り 写真 商品",
}
_WORDS = {language: text.split() for language, text in _TEXTS.items()}


def write_wat(path: Path, pages: int, seed: int = 0) -> None:
    """Writes the file; about 4.5 kB a page, gzipped."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.write(
            _member("warcinfo", "", b"Software-Info: benchmark\r\nformat: WARC File Format 1.0\r\n\r\n")
        )
        for number in range(pages):
            for record in _page(rng, number):
                file.write(record)


def _page(rng: random.Random, number: int) -> Iterator[bytes]:
    host = f"www.site-{rng.randrange(4000)}.example"
    url = f"https://{host}/{_slug(rng)}/{number}.html"
    for kind in ("request", "response", "metadata"):
        envelope: dict[str, Any] = {
            "Format": "WARC/1.0",
            "WARC-Header-Metadata": {
                "WARC-Type": kind,
                "WARC-Date": "2026-10-21T02:08:41Z",
                "WARC-Record-ID": f"<urn:uuid:{rng.getrandbits(128):032x}>",
                "Content-Type": f"application/http; msgtype={kind}",
                "WARC-Target-URI": url,
            },
            "Payload-Metadata": {"Actual-Content-Type": f"application/http; msgtype={kind}"},
        }
        if kind == "response":
            envelope["Payload-Metadata"]["HTTP-Response-Metadata"] = _response(rng, host)
        container = {"Filename": "CC-MAIN-00000.warc.gz", "Compressed": True, "Offset": str(number)}
        payload = {"Container": container, "Envelope": envelope}
        yield _member(
            "metadata", url, json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        )


def _response(rng: random.Random, host: str) -> dict[str, Any]:
    words = _WORDS[rng.choices(list(_WORDS), (50, 14, 10, 10, 10, 6))[0]]
    metas = [
        {"name": name, "content": _text(rng, words, 12)} for name in ("description", "keywords", "author")
    ]
    styles = [{"path": "LINK@/href", "url": f"/css/{_slug(rng)}.css", "rel": "stylesheet"} for _ in range(6)]
    links = [_anchor(rng, words) for _ in range(rng.randrange(40, 120))]
    images = [_image(rng, words, host) for _ in range(rng.randrange(0, 24))]
    for image in images:
        links.insert(rng.randrange(len(links)), image)
    headers = {"Content-Type": "text/html; charset=UTF-8", "Server": "nginx", "Vary": "Accept-Encoding"}
    return {
        "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
        "Headers-Length": "412",
        "Headers": headers,
        "HTML-Metadata": {
            "Head": {"Metas": metas, "Title": _text(rng, words, 8), "Link": styles},
            "Links": links,
        },
        "Entity-Digest": f"sha1:{rng.getrandbits(160):040x}",
    }


def _anchor(rng: random.Random, words: list[str]) -> dict[str, str]:
    return {"path": "A@/href", "url": f"/{_slug(rng)}/{_slug(rng)}", "text": _text(rng, words, 4)}


def _image(rng: random.Random, words: list[str], host: str) -> dict[str, str]:
    place = rng.choice(("/images/", f"//cdn.{host}/", f"https://img.{host}/", "../uploads/2026/"))
    ending = rng.choices((".jpg", ".png", ".webp", ".gif", ".svg"), (60, 20, 10, 6, 4))[0]
    link = {"path": "IMG@/src", "url": f"{place}{_slug(rng)}{ending}"}
    kind = rng.random()
    if kind < 0.25:
        return link
    alt = (
        ""
        if kind < 0.45
        else rng.choice(words)[:4]
        if kind < 0.5
        else _text(rng, words, rng.randrange(2, 12))
    )
    return link | {"alt": alt}


def _text(rng: random.Random, words: list[str], count: int) -> str:
    return " ".join(rng.choices(words, k=count)) + f" {rng.randrange(100_000)}"


def _slug(rng: random.Random) -> str:
    return f"{rng.getrandbits(48):x}-{rng.choice(_WORDS['en'])}"


def _member(kind: str, url: str, payload: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\n" + (f"WARC-Target-URI: {url}\r\n" if url else "")
    head += f"WARC-Date: 2026-10-21T02:08:41Z\r\nContent-Length: {len(payload)}\r\n\r\n"
    return gzip.compress(head.encode() + payload + b"\r\n\r\n", 6, mtime=0)


if __name__ == "__main__":
    write_wat(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
