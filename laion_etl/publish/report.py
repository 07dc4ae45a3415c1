"""report/index.html: one page that shows what a crawl became, readable without network or scripts.

Alt texts on it come from strangers: the template escapes everything, texts are cut and isolated (bdi),
and a content security policy allows nothing but data: images and the one style sheet, by its hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from laion_etl.funnel import DownloadStatus
from laion_etl.overview import CrawlFunnel
from laion_etl.publish import charts
from laion_etl.publish.contact import Band, pictures
from laion_etl.publish.manifest import shaping_settings
from laion_etl.publish.release import PIPELINE, Facts
from laion_etl.publish.statistics import (
    AESTHETIC_EDGES,
    BYTES_EDGES,
    SHORT_SIDE_EDGES,
    SIDE_EDGES,
    SIMILARITY_EDGES,
    Counts,
    language_name,
)
from laion_etl.publish.subsets import SUBSET_HIGH_RESOLUTION
from laion_etl.publish.templating import TEMPLATES, environment, percent, words
from laion_etl.storage import Store

_MOST_ROWS = 12
_BINS_PER_COLUMN = 4  # similarity: columns of 0.02
_INPUT_TITLES = {
    "parse": "Image links",
    "load": "Pairs",
    "plan": "Unique pairs",
    "download": "Unique pairs",
    "score": "Images",
    "publish": "Kept samples",
}
_LAST_TITLES = {
    "parse": "Pairs",
    "load": "Unique pairs",
    "plan": "Planned pairs",
    "download": "Images",
    "score": "Kept samples",
    "publish": "Published",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table with a bar: `share` of the whole, `length` of the bar (0 to 1)."""

    label: str
    count: int
    share: float
    length: float


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number."""

    label: str
    value: str
    note: str


def report_page(facts: Facts, store: Store) -> bytes:
    """The page as UTF-8 HTML. Reads the pictures of the contact sheets from the store."""
    style = (TEMPLATES / "report.css").read_text()
    images = pictures((*facts.kept, *facts.rejected), facts.scored, facts.settings.clip.max_pixels, store)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            pipeline=PIPELINE,
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            tiles=_tiles(facts),
            drawings=_drawings(facts),
            tables=_tables(facts),
            stage_reasons=_stage_reasons(facts.funnel),
            sheets=(
                ("kept", "Kept samples", facts.kept),
                ("rejected", "Rejected samples", facts.rejected),
            ),
            withheld=_withheld((*facts.kept, *facts.rejected)),
            images=images,
            settings=shaping_settings(facts.settings),
        )
    )
    return page.encode()


def _tiles(facts: Facts) -> list[Tile]:
    funnel, statistics = facts.funnel, facts.statistics
    links, images = funnel.row("parse").input, funnel.row("download")
    named = sum(1 for code, _ in statistics.languages.top() if code != "nolang")
    median = statistics.quantile(0.5)
    high = statistics.subset_rows[SUBSET_HIGH_RESOLUTION]
    return [
        Tile("Published samples", f"{statistics.kept:,}", _of(statistics.kept, links, "image links")),
        Tile("Images downloaded", f"{images.kept:,}", _of(images.kept, images.input, "tried")),
        Tile("Languages", f"{named:,}", "recognised in captions"),
        Tile("Median similarity", "–" if median is None else f"{median:.3f}", "of published samples"),
        Tile(
            "High resolution", f"{high:,}", f"both sides ≥ {facts.settings.publish.high_resolution_px:,} px"
        ),
    ]


def _of(part: int, whole: int, what: str) -> str:
    return f"{percent(part / whole)} of {whole:,} {what}" if whole else ""


# Drawings


def _drawings(facts: Facts) -> dict[str, Markup]:
    statistics = facts.statistics
    made = {
        "funnel": _funnel(facts.funnel),
        "similarity": _similarity(facts),
        "sides": _sides(facts),
        "bytes": _bytes(statistics.file_bytes),
    }
    if statistics.aesthetic.sum():
        axis = [(float(score), str(score)) for score in range(0, 11, 2)]
        made["aesthetic"] = charts.histogram(
            AESTHETIC_EDGES.tolist(),
            [("kept", statistics.aesthetic.tolist())],
            [charts.Marker(facts.settings.publish.aesthetic_min, "aesthetic subset →")],
            axis,
            "Aesthetic scores of published samples",
        )
    return made


def _funnel(funnel: CrawlFunnel) -> Markup:
    rows = [row for row in funnel.started_rows if row.dropped or row.stage not in ("plan", "publish")]
    steps = [
        charts.FlowStep(
            row.stage,
            _INPUT_TITLES[row.stage],
            row.input,
            row.kept,
            [(words(reason), count) for reason, count in row.dropped.items()],
        )
        for row in rows
    ]
    return charts.funnel(steps, _LAST_TITLES[funnel.started_rows[-1].stage] if steps else "")


def _similarity(facts: Facts) -> Markup:
    kept, rejected = facts.statistics.similarity_kept, facts.statistics.similarity_rejected
    columns = [counts.reshape(-1, _BINS_PER_COLUMN).sum(axis=1) for counts in (kept, rejected)]
    edges = SIMILARITY_EDGES[::_BINS_PER_COLUMN]
    filled = np.flatnonzero(columns[0] + columns[1])
    first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (50, 75)
    first, last = max(0, first - 2), min(len(edges) - 1, last + 2)
    step = 0.1 if edges[last] - edges[first] > 0.5 else 0.05
    ticks = [round(i * step, 2) for i in range(-20, 41) if edges[first] <= i * step <= edges[last]]
    return charts.histogram(
        edges[first : last + 1].tolist(),
        [("kept", columns[0][first:last].tolist()), ("rejected", columns[1][first:last].tolist())],
        _threshold_markers(facts),
        [(tick, f"{tick:g}") for tick in ticks],
        "Similarity of image and text: kept and rejected samples, with the thresholds",
    )


def _threshold_markers(facts: Facts) -> list[charts.Marker]:
    groups: dict[float, list[str]] = {}
    for group, values in facts.statistics.thresholds.items():
        for value in sorted(values):
            groups.setdefault(value, []).append(group)
    return [
        charts.Marker(value, f"threshold {value:g} ({'all languages' if len(names) > 1 else names[0]})")
        for value, names in sorted(groups.items(), reverse=True)
    ]


def _sides(facts: Facts) -> Markup:
    """The part of the plane that has images, with a bin around it."""
    counts = facts.statistics.sides
    filled = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (6, 12)
    first, last = max(0, first - 1), min(len(counts), last + 1)
    edges = SIDE_EDGES[first : last + 1]
    side = facts.settings.publish.high_resolution_px
    return charts.heat_map(
        counts[first:last, first:last].tolist(),
        [f"{edge:g}" if (first + place) % 2 == 0 else "" for place, edge in enumerate(edges)],
        float(np.log2(max(1, side) / edges[0]) * 2),
        f"high resolution: {facts.statistics.subset_rows[SUBSET_HIGH_RESOLUTION]:,}",
        "Published images by width and height in pixels",
    )


def _bytes(counts: Counts) -> Markup:
    places = [float(place) for place in range(len(BYTES_EDGES))]
    labels = [(place, _size(edge)) for place, edge in zip(places, BYTES_EDGES, strict=True)]
    return charts.histogram(
        places, [("kept", counts.tolist())], [], labels[::2], "File sizes of published images"
    )


def _size(count: float) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"


# Tables


def _tables(facts: Facts) -> dict[str, list[Row]]:
    statistics, download = facts.statistics, facts.funnel.row("download")
    outcomes = [(DownloadStatus.SUCCESS.value, download.kept), *download.dropped.items()]
    languages = [(language_name(code), count) for code, count in statistics.languages.top()]
    return {
        "subsets": _rows(statistics.subset_rows.items(), statistics.kept, most=99),
        "languages": _rows(languages, statistics.kept),
        "licenses": _rows(
            ((("none stated" if name == "?" else name), n) for name, n in statistics.licenses.top()),
            statistics.kept,
        ),
        "domains": _rows(statistics.domains.top(_MOST_ROWS + 3), statistics.kept, most=_MOST_ROWS + 3),
        "outcomes": _rows(((words(name), count) for name, count in outcomes), download.input, most=99),
        "short_sides": _rows(_short_sides(statistics.short_sides), statistics.kept, most=99),
        "safety": _rows(statistics.safety_kept.top(), statistics.kept),
        "similarity": _similarity_rows(facts),
        "aesthetic": _filled(
            [f"{low:g} to {high:g}" for low, high in pairwise(AESTHETIC_EDGES)], statistics.aesthetic
        ),
        "bytes": _filled(
            [f"{_size(low)} to {_size(high)}" for low, high in pairwise(BYTES_EDGES)], statistics.file_bytes
        ),
    }


def _similarity_rows(facts: Facts) -> list[Row]:
    """Kept samples per step of 0.05, the numbers beside the histogram."""
    counts = facts.statistics.similarity_kept.reshape(-1, 10).sum(axis=1)
    labels = [f"{edge:.2f} to {edge + 0.05:.2f}" for edge in SIMILARITY_EDGES[:-1:10]]
    return _filled(labels, counts)


def _filled(labels: Sequence[str], counts: Counts) -> list[Row]:
    """The bins of a histogram that have something in them."""
    named = [(label, int(count)) for label, count in zip(labels, counts, strict=True) if count]
    return _rows(named, int(counts.sum()), most=99)


def _short_sides(counts: Counts) -> list[tuple[str, int]]:
    edges = [str(edge) for edge in SHORT_SIDE_EDGES]
    between = [f"{low} to {int(high) - 1} px" for low, high in pairwise(edges)]
    return list(
        zip([f"under {edges[0]} px", *between, f"{edges[-1]} px and more"], counts.tolist(), strict=True)
    )


def _stage_reasons(funnel: CrawlFunnel) -> list[tuple[str, int, list[Row]]]:
    """Stage, its input, and its reasons; the WAT records first."""
    return [
        (row.stage, row.input, _rows(((words(r), n) for r, n in row.dropped.items()), row.input, most=99))
        for row in funnel.all_rows
        if row.dropped and row.stage != "download"
    ]


def _rows(counts: Iterable[tuple[str, int]], whole: int, most: int = _MOST_ROWS) -> list[Row]:
    """Rows with their share of the whole, bars relative to the longest; what is past `most` is added up."""
    listed = list(counts)
    shown = listed[:most]
    if rest := listed[most:]:
        shown.append((f"{len(rest):,} others", sum(count for _, count in rest)))
    longest = max([1, *(count for _, count in shown)])
    return [Row(label, count, count / whole if whole else 0.0, count / longest) for label, count in shown]


def _withheld(bands: Sequence[Band]) -> int:
    return sum(1 for band in bands for sample in band.samples if sample.withheld is not None)
