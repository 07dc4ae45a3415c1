"""README.md of a version: the dataset card in Hugging Face's format (YAML front matter, then Markdown)."""

import re
from collections.abc import Iterable, Sequence

from laion_etl.core import paper_thresholds
from laion_etl.core.funnel import sentence_of
from laion_etl.core.published_columns import PUBLISHED_COLUMNS
from laion_etl.dataset.model_text import name_and_weights
from laion_etl.dataset.subsets import DataFile
from laion_etl.publish.card_text import (
    BIASES,
    BIBTEX,
    LICENCE,
    LICENSE_NAME,
    LIMITS,
    MISUSES,
    PERSONAL,
    USES,
)
from laion_etl.publish.croissant import file_patterns
from laion_etl.report.contact_sheets import SheetSample
from laion_etl.report.contents import SIDES
from laion_etl.report.publish_context import PIPELINE, PublishContext
from laion_etl.report.statistics import ENGLISH, OTHER, SHARE_EDGES, language_name
from laion_etl.report.tables import caption_sources, duplicates, filtered, opt_outs, repeats, resolutions
from laion_etl.report.templating import environment, words

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}\Z")
_RENAMED = {"iw": "he", "jw": "jv"}  # CLD3 codes that ISO 639 has replaced
_MAX_LINES = 15
_EXAMPLES = 6
_LIMITS_OF_SCORES = (("punsafe", 0.5), ("pwatermark", 0.8))  # the limits LAION-5B reports
_SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
)


def render_card(context: PublishContext, files: Iterable[DataFile], folder: str) -> bytes:
    """Render the card of a version as UTF-8 Markdown, for a folder; `files` are its data files."""
    statistics = context.statistics
    codes = [code for code, _ in statistics.languages.top()]
    template = environment().get_template("card.md.j2")
    return template.render(
        context=context,
        pipeline=PIPELINE,
        size=size_category(context.total_rows),
        language_codes=sorted({_RENAMED.get(code, code) for code in codes if _LANGUAGE_CODE.match(code)}),
        configs=_configs(context, files, folder),
        columns=[
            *((column.name, str(column.type), column.meaning) for column in PUBLISHED_COLUMNS),
            *((head.name, str(head.field.type), _escaped(head.meaning)) for head in context.columns),
        ],
        languages=_lines([(language_name(code), n) for code, n in statistics.languages.top()]),
        licenses=_lines([("none stated" if n == "?" else n, c) for n, c in statistics.licenses.top()]),
        sources=[(name, int(found.kept.sum())) for name, found in caption_sources(statistics)],
        safety=statistics.safety_kept.top(),
        safety_origins=[_escaped(" ".join(origin.split())) for origin in context.scored.safety],
        sides=SIDES,
        resolutions=resolutions(statistics),
        examples=_examples(context),
        quantiles=[(share, statistics.quantile(share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)],
        thresholds={group: sorted(values) for group, values in statistics.thresholds.items()},
        other_models=_models_of_other_thresholds(context),
        drops=_drops(context),
        scores=_scores(context),
        repeats=repeats(statistics.images),
        duplicates=duplicates(context.funnel),
        filtered=filtered(context.funnel),
        opt_outs=opt_outs(context.funnel),
        uses=USES,
        misuses=MISUSES,
        limits=LIMITS,
        biases=BIASES,
        personal=PERSONAL,
        licence=LICENCE,
        license_name=LICENSE_NAME,
        bibtex=BIBTEX,
        cell=cell,
    ).encode()


def _models_of_other_thresholds(context: PublishContext) -> list[tuple[float, str]]:
    """Return the models that were used with a threshold of the paper, which belongs to another model."""
    used, scored = context.statistics.thresholds, context.scored
    found = paper_thresholds.of_other_models(used[ENGLISH], used[OTHER], scored.models, scored.other_models)
    return list(dict.fromkeys((threshold, name_and_weights(model)) for threshold, model in found))


def size_category(rows: int) -> str:
    """Return Hugging Face's size category for a number of rows."""
    return next((name for limit, name in _SIZE_CATEGORIES if rows < limit), "10B<n<100B")


def cell(text: str, most: int = 120) -> str:
    """Return untrusted text as inline code for a Markdown table: no markup, no links, no line ends.

    Args:
        text: Any text.
        most: Characters of it that are shown.
    """
    plain = re.sub(r"[\s`|]+", " ", "".join(c for c in text if c.isprintable())).strip()
    return f"`{plain[:most] or ' '}`"


def _escaped(text: str) -> str:
    """Return a custom head's words for a Markdown table: no markup of a table, no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _configs(context: PublishContext, files: Iterable[DataFile], folder: str) -> list[tuple[str, list[str]]]:
    """Return the subsets that have files, and their file patterns; viewers cannot open an empty subset."""
    listed = list(files)
    names = dict.fromkeys([*(one.name for one in context.subsets), *(file.subset for file in listed)])
    patterns = ((name, file_patterns(name, listed, folder)) for name in names if name)
    return [(name, found) for name, found in patterns if found]


def _lines(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    rest = counts[_MAX_LINES:]
    summed = [(f"{len(rest)} more", sum(count for _, count in rest))] if rest else []
    return [*counts[:_MAX_LINES], *summed]


def _examples(context: PublishContext) -> list[SheetSample]:
    """Return a few rows of the contact sheet, of those whose image and caption may be shown."""
    shown = [sample for band in context.kept for sample in band.samples if sample.withheld is None]
    return shown[:: max(1, len(shown) // _EXAMPLES)][:_EXAMPLES]


def _scores(context: PublishContext) -> list[tuple[str, float, int, int]]:
    """Return score, limit, the number of published rows that reach it, and of rows that have the score."""
    found = ((name, limit, getattr(context.statistics, name)) for name, limit in _LIMITS_OF_SCORES)
    return [
        (name, limit, int(counts[SHARE_EDGES[:-1] >= limit - 1e-9].sum()), int(counts.sum()))
        for name, limit, counts in found
        if counts.sum()
    ]


def _drops(context: PublishContext) -> list[tuple[str, str, int, str]]:
    """Return stage, reason, count and meaning of each drop reason."""
    return [
        (row.stage, words(reason), count, sentence_of(row.stage, reason))
        for row in context.funnel.rows
        for reason, count in row.dropped.items()
    ]
