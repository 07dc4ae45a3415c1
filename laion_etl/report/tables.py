"""The tables of the report: all numbers that are drawn, and those without a drawing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from laion_etl.core.caption_source import SOURCES
from laion_etl.core.funnel import OPT_OUTS, DownloadStatus, ParseReason, ScoreReason
from laion_etl.core.quantities import quantity
from laion_etl.dataset.funnel_report import CrawlFunnel
from laion_etl.report import charts
from laion_etl.report.contents import ASPECT_EDGES, MEASURES, PAIRS, RESOLUTIONS, SIDES
from laion_etl.report.figures import LANGUAGES_SHOWN, kind, size
from laion_etl.report.publish_context import PublishContext
from laion_etl.report.sketches import Repeats
from laion_etl.report.statistics import (
    AESTHETIC_EDGES,
    BYTES_EDGES,
    CAPTION_EDGES,
    SHARE_EDGES,
    SHORT_SIDE_EDGES,
    SIMILARITY_EDGES,
    Counts,
    Edges,
    GroupSimilarities,
    Statistics,
    language_name,
    similarity_quantile,
)
from laion_etl.report.templating import words

_MAX_ROWS = 12
_LANGUAGES_WITH_WORDS = 8
_WORDS_SHOWN = 12
_MIN_TIMES = 3  # a word in fewer captions may identify someone
_DRAWN = (
    ("languages", "kept", "Published samples by language"),
    ("outcomes", "neutral", "Links by the outcome of their download"),
    ("opt-outs", "opted-out", "Links left out because of an opt-out, by kind"),
)
_BINS_PER_ROW = 10  # similarity: rows of 0.05
_REPEAT_BOUNDS = ((1, 1, "once"), (2, 2, "twice"), (3, 9, "3 to 9 times"), (10, 99, "10 to 99 times"))
_ALWAYS_FILTERED = (
    ("parse", ParseReason.BLOCKED_DOMAIN.value),
    ("parse", ParseReason.BLOCKED_URL.value),
    ("parse", ParseReason.BLOCKED_PAIR.value),
    ("download", DownloadStatus.BLOCKED_HASH.value),
    ("score", ScoreReason.SUSPECTED_UNDERAGE.value),
)
_OPT_OUT_TITLES = {
    DownloadStatus.OPTED_OUT_ROBOTS_TAG: "X-Robots-Tag header",
    DownloadStatus.OPTED_OUT_TDM: "TDM reservation (header or tdmrep.json)",
    DownloadStatus.OPTED_OUT_ROBOTS_TXT: "robots.txt",
    DownloadStatus.OPTED_OUT_METADATA: "metadata in the image (IPTC, PLUS, C2PA)",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table with a bar: `share` of the whole, `length` of the bar (0 to 1)."""

    label: str
    count: int
    share: float
    length: float


def tables(context: PublishContext) -> dict[str, list[Row]]:
    """Return the tables by name."""
    statistics, download = context.statistics, context.funnel.row("download")
    outcomes = [(DownloadStatus.SUCCESS.value, download.kept), *download.dropped.items()]
    languages = [(language_name(code), count) for code, count in statistics.languages.top()]
    licenses = [("none stated" if name == "?" else name, n) for name, n in statistics.licenses.top()]
    return {
        "subsets": rows(statistics.subset_rows.items(), statistics.kept, max_rows=99),
        "languages": rows(languages, statistics.kept),
        "licenses": rows(licenses, statistics.kept),
        "domains": rows(statistics.domains.top(_MAX_ROWS + 3), statistics.kept, max_rows=_MAX_ROWS + 3),
        "outcomes": rows(((words(name), count) for name, count in outcomes), download.input, max_rows=99),
        "opt-outs": rows(opt_outs(context.funnel), download.input),
        "duplicates": rows(duplicates(context.funnel), context.funnel.row("parse").input, max_rows=99),
        "repeats": rows(repeats(statistics.images), statistics.kept),
        "lookalikes": rows(repeats(statistics.contents.lookalikes), statistics.kept),
        "aspects": _filled([f"{2**edge:.2f}" for edge in ASPECT_EDGES], statistics.contents.aspects),
        "short-sides": rows(_short_sides(statistics.short_sides), statistics.kept, max_rows=99),
        "safety": rows(statistics.safety_kept.top(), statistics.kept),
        "filtered": rows(filtered(context.funnel), context.funnel.row("parse").input, max_rows=99),
        **{
            f"similarity-{group.lower()}": _similarity(found.kept)
            for group, found in statistics.similarities.items()
        },
        "aesthetic": _binned(AESTHETIC_EDGES[::2], statistics.aesthetic.reshape(-1, 2).sum(axis=1)),
        "punsafe": _binned(SHARE_EDGES[::4], statistics.punsafe.reshape(-1, 4).sum(axis=1)),
        "pwatermark": _binned(SHARE_EDGES[::4], statistics.pwatermark.reshape(-1, 4).sum(axis=1)),
        "bytes": _filled([size(edge) for edge in BYTES_EDGES], statistics.file_bytes),
        "caption-length": _filled([f"{edge:.0f}" for edge in CAPTION_EDGES], statistics.caption_chars),
    }


def opt_outs(funnel: CrawlFunnel) -> list[tuple[str, int]]:
    """Count links left out because of an opt-out, by its kind; every kind is listed."""
    dropped = funnel.row("download").dropped
    return [(_OPT_OUT_TITLES[status], dropped.get(status.value, 0)) for status in OPT_OUTS]


def duplicates(funnel: CrawlFunnel) -> list[tuple[str, int]]:
    """Count records dropped as duplicates, by reason and stage."""
    return [
        (f"{words(reason)} ({row.stage})", count)
        for row in funnel.rows
        for reason, count in row.dropped.items()
        if kind(reason) == "duplicate"
    ]


def filtered(funnel: CrawlFunnel) -> list[tuple[str, int]]:
    """Count records dropped for safety, by reason and stage; the standard checks are listed even if zero."""
    found: dict[tuple[str, str], int] = dict.fromkeys(_ALWAYS_FILTERED, 0)
    for row in funnel.rows:
        found |= {(row.stage, r): count for r, count in row.dropped.items() if kind(r) == "unsafe"}
    return [(f"{words(reason)} ({stage})", count) for (stage, reason), count in found.items()]


def repeats(images: Repeats) -> list[tuple[str, int]]:
    """Count published samples by how often their image file is published."""
    found = images.by_count()
    listed = [
        (name, sum(times * values for times, values in found if low <= times <= high))
        for low, high, name in _REPEAT_BOUNDS
    ]
    listed.append(("100 times and more", sum(times * values for times, values in found if times >= 100)))
    return [(name, count) for name, count in listed if count]


def stage_reasons(funnel: CrawlFunnel) -> list[tuple[str, int, list[Row]]]:
    """Return each stage, its input, and its reasons; the WAT records first."""
    return [
        (row.stage, row.input, rows(((words(r), n) for r, n in row.dropped.items()), row.input, max_rows=99))
        for row in funnel.all_rows
        if row.dropped and row.stage != "download"
    ]


def bar_charts(context: PublishContext) -> dict[str, Markup]:
    """Draw tables as bar charts, except those with text from the web (domains, licences)."""
    found = tables(context)
    return {
        name: charts.bars([(row.label, row.count, row.share) for row in found[name]], shape, title)
        for name, shape, title in _DRAWN
    }


def language_quartiles(context: PublishContext) -> list[tuple[str, list[float | None]]]:
    """Return the quartiles of similarity for the most frequent languages."""
    found = context.statistics.language_similarities
    return [
        (language_name(code), [similarity_quantile(found[code], share) for share in (0.25, 0.5, 0.75)])
        for code, _ in context.statistics.languages.top(LANGUAGES_SHOWN)
        if code in found
    ]


def resolutions(statistics: Statistics) -> list[tuple[int, list[tuple[int, float]]]]:
    """Return LAION's table: pixels, and for both sides and either side the count and share of images."""
    counts, whole = statistics.contents.resolutions.tolist(), max(1, statistics.kept)
    width = len(SIDES)
    return [
        (px, [(count, count / whole) for count in counts[place * width : (place + 1) * width]])
        for place, px in enumerate(RESOLUTIONS)
    ]


def correlations(statistics: Statistics) -> list[tuple[str, list[float | None]]]:
    """Return the correlations of each measure with all; measures without values are left out."""
    table: dict[tuple[int, int], float | None] = {}
    for place, (first, second) in enumerate(PAIRS):
        table[first, second] = table[second, first] = statistics.contents.correlation(place)
    shown = sorted({place for pair, value in table.items() if value is not None for place in pair})
    return [
        (MEASURES[row], [1.0 if row == column else table[row, column] for column in shown]) for row in shown
    ]


def frequent_words(statistics: Statistics) -> list[tuple[str, list[str], list[str]]]:
    """Return the frequent words and phrases of two words for the most frequent languages."""
    found = []
    for code, _ in statistics.languages.top(_LANGUAGES_WITH_WORDS):
        words, phrases = (
            [value for value, times in one.of(code, _WORDS_SHOWN) if times >= _MIN_TIMES]
            for one in (statistics.contents.words, statistics.contents.phrases)
        )
        if words:
            found.append((language_name(code), words, phrases))
    return found


def caption_sources(statistics: Statistics) -> list[tuple[str, GroupSimilarities]]:
    """Return the sources of captions that occur, in their order, with the similarities of their samples."""
    found = statistics.source_similarities
    return [(source.value, found[source]) for source in SOURCES if source in found]


def source_similarities(context: PublishContext) -> list[tuple[str, int, float, list[float | None]]]:
    """Return for each source of captions the scored samples, the share that is kept, and the quartiles of
    similarity of all of them; nothing where all captions come from one source.
    """
    found = []
    for source, counted in caption_sources(context.statistics):
        scored, kept = counted.kept + counted.rejected, int(counted.kept.sum())
        total = int(scored.sum())
        quartiles = [similarity_quantile(scored, share) for share in (0.25, 0.5, 0.75)]
        found.append((source, total, kept / total if total else 0.0, quartiles))
    return found if len(found) > 1 else []


def rows(counts: Iterable[tuple[str, int]], whole: int, max_rows: int = _MAX_ROWS) -> list[Row]:
    """Return rows with their share of the whole and bars relative to the longest.

    Counts past `max_rows` are summed up in one row.
    """
    listed = list(counts)
    shown = listed[:max_rows]
    if rest := listed[max_rows:]:
        shown.append((quantity(len(rest), "other"), sum(count for _, count in rest)))
    longest = max([1, *(count for _, count in shown)])
    return [Row(label, count, count / whole if whole else 0.0, count / longest) for label, count in shown]


def _similarity(counts: Counts) -> list[Row]:
    """Count kept samples per step of 0.05, the numbers of the histogram."""
    return _filled(
        [f"{edge:.2f}" for edge in SIMILARITY_EDGES[::_BINS_PER_ROW]], counts.reshape(-1, 10).sum(axis=1)
    )


def _binned(edges: Edges, counts: Counts) -> list[Row]:
    return _filled([f"{edge:g}" for edge in edges], counts)


def _filled(names: Sequence[str], counts: Counts) -> list[Row]:
    """Return the bins of a histogram that are not empty; `names` are those of its edges."""
    labels = (f"{low} to {high}" for low, high in pairwise(names))
    named = [(label, int(count)) for label, count in zip(labels, counts, strict=True) if count]
    return rows(named, int(counts.sum()), max_rows=99)


def _short_sides(counts: Counts) -> list[tuple[str, int]]:
    edges = [str(edge) for edge in SHORT_SIDE_EDGES]
    between = [f"{low} to {int(high) - 1} px" for low, high in pairwise(edges)]
    return list(
        zip([f"under {edges[0]} px", *between, f"{edges[-1]} px and more"], counts.tolist(), strict=True)
    )
