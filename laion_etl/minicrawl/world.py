"""The mini web of a seed: every image link with its alt text, and the resource behind its URL.

Everything follows from the seed, so the builder of the crawl files, the web server and the tests each
make their own copy of the same world.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from laion_etl.core.funnel import DownloadStatus
from laion_etl.minicrawl.behaviours import (
    BAD_ADDRESSES,
    BAD_LINKS,
    SHOPS,
    SHOWING,
    SITES,
    BadLink,
    Behaviour,
    Resource,
)
from laion_etl.minicrawl.drawn_images import DrawnImage, Form
from laion_etl.minicrawl.scenes import LANGUAGES, Scene, caption, random_scene
from laion_etl.parse.language import language_detector
from laion_etl.settings import ParseSettings

IMAGE_HOSTS = (
    f"photos.{SITES}",
    f"static.{SITES}",
    f"media.{SITES}",
    f"blog-images.{SITES}",
    f"archive.{SITES}",
    f"cdn.{SHOPS}",
    f"img1.{SHOPS}",
    f"img2.{SHOPS}",
)

GOOD_LINKS = 1_180
_MATCHING_SHARE = 0.66
_OTHER_SCENE_SHARE = 0.75  # of the rest: a caption of another scene, else a text about something else
_ENGLISH_SHARE = 0.45
_NO_LANGUAGE_SHARE = 0.04
_MOJIBAKE_SHARE = 0.05
_HAZARDS, _HAZARDS_WITH_CHILD = 36, 10
_LARGE = 12  # images of 1024 pixels and more on both sides
_MIDDLE_SHARE = 0.1  # of 400 to 700 pixels; the others are smaller
_MIRRORED_SHARE = 0.45  # images that other URLs show too
_WATERMARKED_ONE_IN = 16

_FORMS = (
    (Form.JPEG, 62),
    (Form.PROGRESSIVE_JPEG, 6),
    (Form.PNG, 12),
    (Form.WEBP, 15),
    (Form.ROTATED_JPEG, 1),
    (Form.CMYK_JPEG, 1),
    (Form.GREY_JPEG, 1),
    (Form.ALPHA_PNG, 1),
    (Form.PALETTE_PNG, 1),
)

_UNRELATED = {
    "en": (
        "Read our terms of delivery and returns before you order",
        "The annual report of the board for the past financial year",
        "Sign up for our weekly newsletter and save ten percent",
        "Opening hours of the public library during the holidays",
    ),
    "de": (
        "Unsere Öffnungszeiten während der Feiertage im Überblick",
        "Bitte beachten Sie die Hinweise zum Datenschutz auf dieser Seite",
    ),
    "fr": (
        "Les conditions générales de vente de notre magasin en ligne",
        "Abonnez-vous à notre lettre d'information hebdomadaire",
    ),
    "es": (
        "Condiciones de envío y devolución de nuestra tienda en línea",
        "Suscríbase a nuestro boletín de noticias semanal",
    ),
    "ru": (
        "Условия доставки и возврата товаров в нашем магазине",
        "Подпишитесь на нашу еженедельную рассылку новостей",
    ),
}


@dataclass(frozen=True, slots=True)
class Link:
    """An image link as parsing must find it: absolute URL, alt text as the page writes it."""

    url: str
    alt: str
    language: str
    status: DownloadStatus


@dataclass(frozen=True, slots=True)
class World:
    """All links, and what the server does for each (host, path)."""

    seed: int
    links: tuple[Link, ...]
    resources: dict[tuple[str, str], Resource] = field(repr=False)

    @property
    def images(self) -> list[DrawnImage]:
        """Every image that a server shows, without repeats."""
        return list(dict.fromkeys(r.image for r in self.resources.values() if r.image is not None))

    @property
    def expected(self) -> dict[str, DownloadStatus]:
        """How the download of each image URL must end."""
        return {link.url: link.status for link in self.links}


def make_world(seed: int) -> World:
    """The world of a seed; equal seeds give equal worlds."""
    maker = _Maker(random.Random(f"minicrawl {seed}"))
    links = [*maker.good_links(), *maker.bad_links(), *maker.bad_addresses()]
    maker.rng.shuffle(links)
    return World(seed, tuple(links), maker.resources)


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.resources: dict[tuple[str, str], Resource] = {
            (host, f"/loop/{here}"): Resource(Behaviour.REDIRECT, location=f"/loop/{there}")
            for host in IMAGE_HOSTS
            for here, there in (("a", "b"), ("b", "a"))
        }
        rules = Resource(Behaviour.ROBOTS_TXT)
        self.resources |= {(host, "/robots.txt"): rules for host in IMAGE_HOSTS}
        self._detector = language_detector(ParseSettings())
        self._drawn: list[DrawnImage] = []
        self._number = 1_000

    def good_links(self) -> Iterator[Link]:
        """Links whose image exists, about two thirds of them with a matching text."""
        for i in range(GOOD_LINKS):
            image, alt, language = self._pair(i)
            url = self._place_good(image)
            yield Link(url, alt, language, DownloadStatus.SUCCESS)
            if i % 24 == 0:  # the same URL under another text is another pair
                yield Link(url, self._alt(image.scene, "en"), "en", DownloadStatus.SUCCESS)

    def bad_links(self) -> Iterator[Link]:
        """Links that fail at the server."""
        for bad in BAD_LINKS:
            for _ in range(bad.count):
                scene, language = random_scene(self.rng), self._language()
                image = DrawnImage(scene, bad.side, bad.side, self.rng.getrandbits(32), bad.form)
                url = self._place(self._bad_resource(bad, image), image.extension, bad.folder)
                yield Link(url, caption(scene, language, self.rng), language, bad.status)

    def bad_addresses(self) -> Iterator[Link]:
        """Links that fail before any request is sent."""
        for template, status, count in BAD_ADDRESSES:
            for _ in range(count):
                language = self._language()
                alt = caption(random_scene(self.rng), language, self.rng)
                yield Link(template.format(n=self._next()), alt, language, status)

    def _bad_resource(self, bad: BadLink, image: DrawnImage) -> Resource:
        return Resource(bad.behaviour, image if bad.behaviour in SHOWING else None, bad.location)

    def _language(self) -> str:
        others = [language for language in LANGUAGES if language != "en"]
        return "en" if self.rng.random() < _ENGLISH_SHARE else self.rng.choice(others)

    def _alt(self, scene: Scene, language: str) -> str:
        if self.rng.random() < _MATCHING_SHARE:
            text = caption(scene, language, self.rng)
            return _mojibake(text) if self.rng.random() < _MOJIBAKE_SHARE else text
        if self.rng.random() < _OTHER_SCENE_SHARE:
            return caption(random_scene(self.rng), language, self.rng)
        return f"{self.rng.choice(_UNRELATED[language])} ({self._next()})"

    def _without_language(self) -> tuple[Scene, str]:
        """A scene and a caption whose language CLD3 finds unreliable: about one in a hundred."""
        while True:
            scene, language = random_scene(self.rng), self.rng.choice(LANGUAGES)
            text = caption(scene, language, self.rng)
            if not self._detector.detect([text]).codes[0]:
                return scene, text

    def _pair(self, i: int) -> tuple[DrawnImage, str, str]:
        """Image, alt text and language of the i-th good link."""
        language = self._language()
        if i < _HAZARDS:
            scene = replace(random_scene(self.rng), hazard=True)
            if i < _HAZARDS_WITH_CHILD:
                return self._draw(scene), f"A child and {_lower(caption(scene, 'en', self.rng))}", "en"
            return self._draw(scene), self._alt(scene, language), language
        if i < _HAZARDS + _LARGE:
            sides = (self.rng.randint(1_024, 1_200), self.rng.randint(1_024, 1_200))
            scene = random_scene(self.rng)
            image = DrawnImage(scene, *sides, self.rng.getrandbits(32), Form.JPEG)
            return image, self._alt(scene, language), language
        if self.rng.random() < _NO_LANGUAGE_SHARE:
            scene, alt = self._without_language()
            return self._draw(scene), alt, language
        mirrored = self.rng.random() < _MIRRORED_SHARE
        image = self.rng.choice(self._drawn) if mirrored else self._draw(random_scene(self.rng))
        return image, self._alt(image.scene, language), language

    def _draw(self, scene: Scene) -> DrawnImage:
        if self.rng.random() < _MIDDLE_SHARE:
            sides = (self.rng.randint(480, 700), self.rng.randint(400, 700))
        else:
            sides = (self.rng.randint(200, 360), self.rng.randint(200, 320))
        forms, weights = zip(*_FORMS, strict=True)
        form = self.rng.choices(forms, weights)[0]
        seed = self.rng.getrandbits(32)
        image = DrawnImage(scene, *sides, seed, form, watermarked=seed % _WATERMARKED_ONE_IN == 0)
        self._drawn.append(image)
        return image

    def _place_good(self, image: DrawnImage) -> str:
        draw = self.rng.random()
        if draw < 0.04:
            return self._redirected(image)
        behaviour = Behaviour.CHUNKED if draw < 0.07 else Behaviour.IMAGE
        if draw > 0.98:
            behaviour = Behaviour.UNTIL_CLOSE
        return self._place(Resource(behaviour, image), image.extension)

    def _redirected(self, image: DrawnImage) -> str:
        """One to three hops to the image, absolute or relative to the scheme."""
        url = self._place(Resource(Behaviour.IMAGE, image), image.extension)
        for _ in range(self.rng.randint(1, 3)):
            location = self.rng.choice([url, url.removeprefix("http:")])
            url = self._place(Resource(Behaviour.REDIRECT, location=location), image.extension)
        return url

    def _place(self, resource: Resource, extension: str, folder: str = "") -> str:
        """Puts a resource on a random host and returns its URL."""
        host, number = self.rng.choice(IMAGE_HOSTS), self._next()
        path = folder + self.rng.choice(
            [
                f"/uploads/2026/{number % 12 + 1:02d}/photo-{number}{extension}",
                f"/media/{number % 40}/{number}{extension}",
                f"/image.php?id={number}&size=large",
                f"/p/{number}{extension}?v={number % 7}",
            ]
        )
        self.resources[host, path] = resource
        return f"http://{host}{path}"

    def _next(self) -> int:
        self._number += 1
        return self._number


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _mojibake(text: str) -> str:
    """UTF-8 decoded as Windows-1252 if that is possible, else the text itself."""
    try:
        return text.encode().decode("cp1252")
    except UnicodeDecodeError:
        return text
