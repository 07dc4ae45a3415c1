"""The pages of the mini crawl: the images they show, how the HTML writes URLs, and the junk around."""

import posixpath
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from laion_etl.core.funnel import ParseReason
from laion_etl.minicrawl.behaviours import SITES
from laion_etl.minicrawl.scenes import LANGUAGES
from laion_etl.minicrawl.world import IMAGE_HOSTS, Link, World

PAGE_HOSTS = (*IMAGE_HOSTS[:4], f"www.{SITES}", f"forum.{SITES}", f"news.{SITES}")

_LICENCES = (
    "https://creativecommons.org/licenses/by/4.0/",
    "https://creativecommons.org/licenses/by-sa/4.0/deed.en",
    "http://creativecommons.org/licenses/by-nc-nd/3.0/",
    "//creativecommons.org/publicdomain/zero/1.0/",
)
_LICENCE_SHARE, _BASE_SHARE, _HTTPS_SHARE, _HEADLESS_SHARE = 0.16, 0.1, 0.25, 0.04

_TITLES = {
    "en": ("Pictures of the week", "Our gallery", "Travel notes from the coast"),
    "de": ("Bilder der Woche", "Unsere Galerie", "Reisenotizen von der Küste"),
    "fr": ("Les images de la semaine", "Notre galerie", "Carnets de voyage"),
    "es": ("Imágenes de la semana", "Nuestra galería", "Notas de viaje"),
    "ru": ("Фотографии недели", "Наша галерея", "Заметки путешественника"),
}

_PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_LONG_HOST = f"{'very-' * 12}long-name.minicrawl.example"

# (url, alt, reason) of links that give no pair. None: the attribute is missing.
JUNK: tuple[tuple[str | None, str | None, ParseReason], ...] = (
    (None, "A picture that lost its address", ParseReason.NO_URL),
    ("", "A picture with an empty address", ParseReason.NO_URL),
    ("/img/spacer.png", None, ParseReason.NO_ALT),
    ("/img/spacer.png", "", ParseReason.NO_ALT),
    ("/img/rule.png", " \t\n\u00a0 ", ParseReason.NO_ALT),
    ("/img/rule.png", "\u0000\u0007\u200b\ufeff", ParseReason.NO_ALT),
    ("/img/icon-user.png", "user", ParseReason.ALT_TOO_SHORT),
    ("/img/1.jpg", " 1 \u0001", ParseReason.ALT_TOO_SHORT),
    ("/img/photo.jpg", "фото", ParseReason.ALT_TOO_SHORT),
    (_PIXEL, "Loading the picture", ParseReason.URL_SCHEME),
    ("javascript:void(0)", "Open the gallery", ParseReason.URL_SCHEME),
    ("blob:http://www.minicrawl.example/9115d58c-bcda", "Preview of your upload", ParseReason.URL_SCHEME),
    ("ftp://files.minicrawl.example/scan.jpg", "Scan of the old map", ParseReason.URL_SCHEME),
    ("/assets/logo.svg", "Logo of the gallery", ParseReason.URL_EXTENSION),
    ("//static.minicrawl.example/banner.gif?v=2", "Banner of the summer sale", ParseReason.URL_EXTENSION),
    ("/smilies/WINK.GIF", "Winking smiley", ParseReason.URL_EXTENSION),
    (
        f"/thumb.php?sig={'0123456789abcdef' * 140}",
        "Thumbnail with a long signature",
        ParseReason.URL_TOO_LONG,
    ),
    (f"data-url.php?{'x' * 5_000}", "Thumbnail with a longer signature", ParseReason.URL_TOO_LONG),
    (f"http://{_LONG_HOST}/1.jpg", "Picture of a distant host", ParseReason.HOST_TOO_LONG),
    ("http://[broken/1.jpg", "Picture behind a broken address", ParseReason.URL_INVALID),
    ("http://me:secret@www.minicrawl.example/1.jpg", "Picture with a password", ParseReason.URL_INVALID),
    ("http://10.0.0.8/intranet/1.jpg", "Picture of the intranet", ParseReason.HOST_NOT_PUBLIC),
    ("http://169.254.169.254/latest/meta-data/", "Picture of the cloud", ParseReason.HOST_NOT_PUBLIC),
    ("http://[::1]/1.jpg", "Picture of the own machine", ParseReason.HOST_NOT_PUBLIC),
    ("http://[::ffff:a00:8]/1.jpg", "Picture behind a mapped address", ParseReason.HOST_NOT_PUBLIC),
    ("http://wiki/1.jpg", "Picture of a bare name", ParseReason.HOST_NOT_PUBLIC),
    ("http://nas.local/1.jpg", "Picture of the storage box", ParseReason.HOST_NOT_PUBLIC),
    ("https://www.facebook.com/tr?id=1&ev=PageView", "Facebook pixel", ParseReason.TRACKER),
    ("https://mc.yandex.ru/watch/123", "Counter of the visitors", ParseReason.TRACKER),
    ("/img/spacer.png", "Space between pictures", ParseReason.TRACKER),
    ("/img/logo.png", "Logo image", ParseReason.PLACEHOLDER_WORD),
    ("/img/12.jpg", "изображение 12", ParseReason.PLACEHOLDER_WORD),
    ("/img/IMG_2041.JPG", "IMG_2041.JPG", ParseReason.PLACEHOLDER_FILE_NAME),
    ("/img/hash.jpg", "d41d8cd98f00b204e9800998ecf8427e", ParseReason.PLACEHOLDER_HASH),
    ("/img/date.jpg", "12 March 2024", ParseReason.PLACEHOLDER_DATE),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML page as the extractor describes it."""

    url: str
    language: str
    title: str
    base: str | None
    licence: str | None
    headless: bool  # no <head>: the extractor writes no Head
    images: tuple[dict[str, str], ...]  # attributes of the IMG tags, as the page has them


def make_pages(world: World) -> tuple[list[Page], Counter[ParseReason]]:
    """Pages that show every link of the world at least once; counts of what parsing must drop."""
    maker = _PageMaker(world, random.Random(f"pages {world.seed}"))
    pages = list(maker.pages())
    return pages, maker.dropped


class _PageMaker:
    def __init__(self, world: World, rng: random.Random) -> None:
        self.dropped: Counter[ParseReason] = Counter()
        self._links = world.links
        self._rng = rng
        self._shown: list[Link] = []
        self._seen: set[tuple[str, str]] = set()
        self._junk = 0

    def pages(self) -> Iterator[Page]:
        groups = []
        for language in LANGUAGES:
            links = [link for link in self._links if link.language == language]
            while links:
                size = self._rng.randint(2, 8)
                groups.append((language, links[:size]))
                del links[:size]
        self._rng.shuffle(groups)
        for number, (language, links) in enumerate(groups):
            yield self._page(number, language, links)

    def _page(self, number: int, language: str, links: list[Link]) -> Page:
        host = self._host(links)
        scheme = "https" if self._rng.random() < _HTTPS_SHARE else "http"
        url = f"{scheme}://{host}/{language}/{number % 9 + 2015}/{number:04d}/index.html"
        base = f"http://{host}/media/" if self._chance(_BASE_SHARE) else None
        images = [self._image(link, base or url) for link in [*links, *self._repeats(links)]]
        images += [self._next_junk() for _ in range(self._rng.randint(0, 3))]
        self._rng.shuffle(images)
        self._shown += links
        return Page(
            url=url,
            language=language,
            title=self._rng.choice(_TITLES[language]),
            base=base,
            licence=self._rng.choice(_LICENCES) if self._chance(_LICENCE_SHARE) else None,
            headless=base is None and self._chance(_HEADLESS_SHARE),
            images=tuple(images),
        )

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _host(self, links: list[Link]) -> str:
        """Half of the pages are on the host of their first image, so that relative URLs occur."""
        first = urlsplit(links[0].url).netloc
        return first if first in IMAGE_HOSTS and self._chance(0.5) else self._rng.choice(PAGE_HOSTS)

    def _repeats(self, links: list[Link]) -> list[Link]:
        """Links shown before: on this page (thumbnail and large view) or on earlier ones."""
        here = [self._rng.choice(links)] if self._chance(0.25) else []
        earlier = self._rng.choices(self._shown, k=self._rng.randint(0, 2)) if self._shown else []
        return here + earlier

    def _image(self, link: Link, base: str) -> dict[str, str]:
        if (link.url, link.alt) in self._seen:
            self.dropped[ParseReason.DUPLICATE] += 1
        self._seen.add((link.url, link.alt))
        alt = self._untidy(link.alt)
        image = {"path": "IMG@/src", "url": self._written(link.url, base), "alt": alt}
        return image | {"title": alt} if self._chance(0.1) else image

    def _untidy(self, alt: str) -> str:
        """Some alts come with white space and control characters that parsing removes."""
        if not self._chance(0.05):
            return alt
        return self._rng.choice(["\n\t  {}  ", "{}\u200b", " {}\r\n"]).format(alt).replace(" ", "\u00a0 ", 1)

    def _written(self, url: str, base: str) -> str:
        """The URL as an author would write it: absolute, by scheme, by host or relative."""
        target, here = urlsplit(url), urlsplit(base)
        rest = url.partition(target.netloc)[2]
        forms = [url, url, f"{url}#main"]
        if target.scheme == here.scheme:
            forms.append(f"//{target.netloc}{rest}")
            if target.netloc == here.netloc:
                relative = posixpath.relpath(target.path, posixpath.dirname(here.path))
                forms += [rest, rest, relative + (f"?{target.query}" if target.query else "")] * 2
        return self._rng.choice(forms)

    def _next_junk(self) -> dict[str, str]:
        url, alt, reason = JUNK[self._junk % len(JUNK)]
        self._junk += 1
        self.dropped[reason] += 1
        attributes = {"path": "IMG@/src", "url": url, "alt": alt}
        return {name: value for name, value in attributes.items() if value is not None}
