"""report/index.html: one page that shows the results of a crawl, readable without network and scripts.

Its alt texts are untrusted: the template escapes everything, texts are cut and isolated (bdi), and a content
security policy allows only data: images, the one style sheet and the one script, each by its hash. The script
only shows tips and sorts tables; the switch between counts and shares is CSS.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from laion_etl.dataset.subsets import SUBSET_HIGH_RESOLUTION
from laion_etl.io.storage import Store
from laion_etl.report.contact_sheets import Band, embedded_images
from laion_etl.report.contents import SIDES
from laion_etl.report.figures import figures
from laion_etl.report.publish_context import PIPELINE, PublishContext, number_list
from laion_etl.report.tables import (
    correlations,
    frequent_words,
    language_quartiles,
    resolutions,
    source_similarities,
    stage_reasons,
    tables,
)
from laion_etl.report.templating import TEMPLATES, environment, percent

STYLES = ("palette.css", "chart.css", "report.css")


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class ReportPart:
    """Units of a crawl, expected and missing; `expected` is None if unknown."""

    name: str
    expected: int | None
    missing: Sequence[int]

    @property
    def numbers(self) -> str:
        """The missing units, as text."""
        return number_list(self.missing) if self.missing else "none"


def report_page(context: PublishContext, store: Store) -> bytes:
    """Render the page as UTF-8 HTML; reads the images of the contact sheets from the store."""
    style = "".join((TEMPLATES / name).read_text() for name in STYLES)
    script = (TEMPLATES / "report.js").read_text()
    images = embedded_images(
        (*context.kept, *context.rejected), context.crawl, context.settings.clip.max_pixels, store
    )
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            context=context,
            pipeline=PIPELINE,
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=_hash(style),
            script=Markup(script),  # noqa: S704 - our own file
            script_hash=_hash(script),
            tiles=_tiles(context),
            drawings=figures(context),
            tables=tables(context),
            language_quartiles=language_quartiles(context),
            source_similarities=source_similarities(context),
            sides=SIDES,
            resolutions=resolutions(context.statistics),
            correlations=correlations(context.statistics),
            frequent_words=frequent_words(context.statistics),
            parts=_parts(context),
            stage_reasons=stage_reasons(context.funnel),
            sheets=(
                ("kept", "Kept samples", context.kept),
                ("rejected", "Rejected samples", context.rejected),
            ),
            withheld=_withheld((*context.kept, *context.rejected)),
            images=images,
            settings=context.applied_settings,
        )
    )
    return page.encode()


def _hash(text: str) -> str:
    """Return the content security policy source of an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _tiles(context: PublishContext) -> list[Tile]:
    funnel, statistics = context.funnel, context.statistics
    links, images = funnel.row("parse").input, funnel.row("download")
    named = sum(1 for code, _ in statistics.languages.top() if code != "nolang")
    median = statistics.quantile(0.5)
    high = statistics.subset_rows.get(SUBSET_HIGH_RESOLUTION, 0)
    return [
        Tile(
            "Published samples",
            f"{statistics.kept:,}",
            _share_of_whole(statistics.kept, links, "image links"),
        ),
        Tile("Images downloaded", f"{images.kept:,}", _share_of_whole(images.kept, images.input, "tried")),
        Tile("Languages", f"{named:,}", "recognised in captions"),
        Tile("Median similarity", "–" if median is None else f"{median:.3f}", "of published samples"),
        Tile(
            "High resolution", f"{high:,}", f"both sides ≥ {context.settings.publish.high_resolution_px:,} px"
        ),
    ]


def _share_of_whole(part: int, whole: int, what: str) -> str:
    return f"{percent(part / whole)} of {whole:,} {what}" if whole else ""


def _parts(context: PublishContext) -> tuple[ReportPart, ReportPart]:
    scored = context.scored
    return (
        ReportPart("partitions", scored.partitions, scored.missing_partitions),
        ReportPart("batches", scored.planned, scored.missing),
    )


def _withheld(bands: Sequence[Band]) -> int:
    return sum(1 for band in bands for sample in band.samples if sample.withheld is not None)
