"""Generates docs/reproduction.md, which compares LAION-5B with this pipeline: `make docs`.

Our column is filled from the defaults of the settings and cannot drift from them; the end-to-end test checks
the mini crawl's numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from laion_etl.settings import Settings

# The mini crawl as `laion-etl demo` and the end-to-end test run it.
MINI_CRAWL = {
    "links": 2_294,
    "alt_too_short": 39,
    "unique": 1_485,
    "images": 1_230,
    "too_few_bytes": 30,
    "too_many_pixels": 4,
    "opted_out": 38,
    "published": 816,
    "english": 361,
    "other": 408,
    "nolang": 47,
    "low_similarity": 404,
    "suspected_underage": 10,
}

_INTRODUCTION = """# Reproduction

*For those who know LAION-5B and ask what is done as it was there, and what is not.*

Generated from `scripts/docs/reproduction.py` by `make docs`; edit it there.

How LAION-5B was collected, according to its makers, and what this pipeline does with its default settings.
"Original" is taken from their announcement (laion.ai/blog/laion-5b, 2022; its sections on acquisition and
filtering cover section 3 of arXiv 2210.08402), and where marked with † from the code of its workers
(crawlingathome). Every statement about the original was found in one of these; "-" means that nothing was
found.

"Mini crawl" has the figures of `laion-etl demo`: drawn images, a tiny CLIP and a web server that misbehaves
on purpose. Its shares show that a rule works, not what the web is like. The figures of your own crawl are in
its report.

"""
_END = """
Next: [compared with other tools](comparison.md), [accuracy of scores](accuracy.md).
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A row: what the original says; ours and the mini crawl's figures, from settings and counts."""

    topic: str
    original: str
    ours: Callable[[Settings], str]
    mini: str
    why: str


def reproduction() -> str:
    """Returns docs/reproduction.md as Markdown."""
    settings = Settings()
    parts = [_INTRODUCTION]
    for title, claims in _SECTIONS:
        rows = [f"| {c.topic} | {c.original} | {c.ours(settings)} | {c.mini} | {c.why} |" for c in claims]
        heading = (
            "| | original | laion_etl | mini crawl | where it differs, and why |\n|---|---|---|---|---|\n"
        )
        parts.append(f"## {title}\n\n{heading}" + "\n".join(rows) + "\n\n")
    return "".join(parts).rstrip("\n") + "\n" + _END


def _share(part: str, whole: str) -> str:
    return f"{MINI_CRAWL[part]:,} of {MINI_CRAWL[whole]:,} ({MINI_CRAWL[part] / MINI_CRAWL[whole]:.1%})"


def _fixed(text: str) -> Callable[[Settings], str]:
    return lambda settings: text  # noqa: ARG005


_LINKS = (
    Claim(
        "source",
        "WAT files of Common Crawl; HTML IMG tags with an alt text",
        lambda s: f"the same, from `{s.core.crawl_source}`; `title` as a column of its own",
        f"{MINI_CRAWL['links']:,} image links",
        "a damaged gzip member costs only itself, not the rest of its file",
    ),
    Claim(
        "caption length",
        "samples with an alt text of less than 5 characters are dropped",
        lambda s: f"under {s.parse.min_alt_chars} characters dropped, cut after {s.parse.max_alt_chars:,}",
        _share("alt_too_short", "links"),
        "counted after repair and collapsing of white space, so that blanks do not count",
    ),
    Claim(
        "languages",
        "language detection with three outcomes: English, another language, none (no detection, or under the "
        "confidence threshold); LANGUAGE computed with CLD3",
        lambda s: (
            f"the same three; `{s.parse.language_detector}`, no language under "
            f"{s.parse.language_min_bytes} bytes or where CLD3 says it is not reliable"
        ),
        f"{MINI_CRAWL['english']} / {MINI_CRAWL['other']} / {MINI_CRAWL['nolang']} published",
        "detected after duplicates are gone, which saves most of the work; another detector is a setting",
    ),
    Claim(
        "placeholders, trackers",
        "-",
        lambda s: (
            "dropped, each with a reason"
            if s.parse.refuse_trackers and s.parse.refuse_placeholder_words
            else "kept"
        ),
        "in the report",
        "captions such as IMG_1234.JPG cost a download each and are no use; `preset = laion5b` keeps them",
    ),
    Claim(
        "duplicates",
        "removed by a bloom filter based on the URL; later a Spark job over everything",
        lambda s: f"by {'URL and caption' if s.load.dedupe == 'pair' else 'URL'}, a primary key in Postgres",
        f"{MINI_CRAWL['unique']:,} unique pairs",
        "exact: a bloom filter also drops pairs it has never seen; works across all crawls of a database; "
        "`dedupe = url` uses the URL alone",
    ),
    Claim(
        "store of links",
        "PostgreSQL, filled by COPY, kept at about 500 million records",
        lambda s: f"PostgreSQL, filled by binary COPY over {s.load.connections} connections a partition",
        "-",
        "a finished crawl can be deleted and its pairs still count as seen "
        "([scaling-postgres.md](scaling-postgres.md))",
    ),
)
_DOWNLOAD = (
    Claim(
        "batches",
        "10,000 links drawn with TABLESAMPLE, so that a batch is a random sample of all links",
        lambda s: (
            f"{s.plan.batch_size:,} links, at most {s.plan.max_pairs_per_host:,} of a host, hosts interleaved"
        ),
        "of 500",
        "assigned in turn instead of drawn: no host gets too many requests, and the same crawl gives the "
        "same batches",
    ),
    Claim(
        "workers",
        "some 300, of 1 to 2 vCPUs, 0.5 to 1 GB and 5 to 10 Mbps each; 10,000 links in 10 to 15 minutes "
        "(11 to 17 links/s)",
        _fixed("any number; each claims batches under a lease"),
        "-",
        "measured side by side in [benchmarks/RESULTS.md](../benchmarks/RESULTS.md)",
    ),
    Claim(
        "client",
        "asynchronous requests with Trio and asks",
        lambda s: f"trio and its own HTTP reader; a link has {s.download.timeout_s:g} s over all redirects",
        "-",
        "asks does not work with a current trio ([comparison.md](comparison.md))",
    ),
    Claim(
        "small images",
        "less than 5 KB are dropped",
        lambda s: f"under {s.download.min_bytes:,} bytes",
        _share("too_few_bytes", "unique"),
        "the same",
    ),
    Claim(
        "huge images",
        "too big a resolution (potential DOS bombs) is dropped before it is processed",
        lambda s: f"over {s.download.max_pixels:,} pixels or {s.download.max_bytes:,} bytes, by the header",
        _share("too_many_pixels", "unique"),
        "decoders also run in processes with memory and time limits",
    ),
    Claim(
        "opt-outs",
        "-",
        lambda s: (
            "X-Robots-Tag, TDMRep, robots.txt, metadata of the image"
            if s.download.opt_out and s.download.tdmrep and s.download.robots_txt
            else "in part"
        ),
        _share("opted_out", "unique"),
        "each kind is a drop reason in funnel, card and report",
    ),
)
_SCORING = (
    Claim(
        "thresholds",
        "similarity 0.28 for English with CLIP ViT-B/32, 0.26 for the rest with mCLIP, chosen by inspecting "
        "results",
        lambda s: (
            f"{s.clip.threshold_en:g} and {s.clip.threshold_other:g} with `{s.clip.model}` "
            f"({s.clip.pretrained}); "
            + ("the same model for all" if not s.clip.other_model else f"`{s.clip.other_model}` for the rest")
        ),
        "0.78 for all: the tiny model's own",
        "a multilingual model can be set (`LAION_ETL_CLIP_OTHER_MODEL`), but thresholds depend on the model; "
        "`laion-etl model calibrate` proposes them",
    ),
    Claim(
        "share dropped",
        "about 90%: from over 50 billion candidates to just below 6 billion",
        _fixed("counted per stage and reason"),
        f"{_share('published', 'images')} of the images kept",
        "in the mini crawl more captions match their image than on the web",
    ),
    Claim(
        "suspected illegal",
        "filtered with CLIP embeddings of images and texts as far as possible; † zero-shot categories: "
        "samples that look both unsafe and under-age are dropped",
        _fixed("the same logic; dropped samples are in no file, their captions in no report"),
        _share("suspected_underage", "images"),
        "blocklists of domains, URLs, pairs and image hashes apply before anything is stored",
    ),
    Claim(
        "animals",
        "† samples that look unsafe and show animals are dropped",
        _fixed("not dropped"),
        "-",
        "such samples keep their tag, and research-safe leaves them out",
    ),
    Claim(
        "safety tag",
        "† UNLIKELY, UNSURE or NSFW by zero-shot categories; punsafe by a classifier on CLIP embeddings",
        lambda s: f"the same; punsafe by {'zero-shot categories' if not s.safety.nsfw_head else 'a head'}",
        "in the report",
        "LAION's own detector can be converted and used (`laion-etl model convert-head`)",
    ),
    Claim(
        "watermarks",
        "pwatermark by a model trained on 90,000 samples",
        lambda s: "by prompts where there are some" if not s.safety.watermark_model else "by an image model",
        "in the report",
        "LAION's model can be set (`LAION_ETL_SAFETY_WATERMARK_MODEL`)",
    ),
)
_DATASET = (
    Claim(
        "size",
        "5.85 billion pairs: 2.32 billion English, 2.26 billion in 100+ other languages, 1.27 billion "
        "without a clear language",
        _fixed("laion-en, laion-multi, laion-nolang"),
        f"{MINI_CRAWL['published']} pairs",
        "LAION-5B combined many crawls; here each crawl adds a version",
    ),
    Claim(
        "unsafe (punsafe > 0.5)",
        "2.9% of English, 3.3% of multi, 3% of nolang",
        _fixed("on the card: punsafe of 0.5 or more"),
        "in the report",
        "the makers call their limits conservative: shares may be too high",
    ),
    Claim(
        "watermarked (pwatermark > 0.8)",
        "6.1% of English, 5.6% of multi, 4% of nolang",
        _fixed("on the card: pwatermark of 0.8 or more"),
        "in the report",
        "the same limit",
    ),
    Claim(
        "both sides over 1024",
        "76 million of English, 57 million of multi",
        lambda s: f"laion-high-resolution: at least {s.publish.high_resolution_px:,} px",
        "10",
        '"at least" instead of "over"',
    ),
    Claim(
        "columns",
        "URL, TEXT, WIDTH, HEIGHT, LANGUAGE (multi only), similarity, pwatermark, punsafe",
        _fixed("the same names, and more ([formats.md](formats.md))"),
        "-",
        "LANGUAGE in all subsets",
    ),
    Claim(
        "licence",
        "metadata under CC BY 4.0; images under their copyright",
        _fixed("none given"),
        "-",
        "the publisher decides",
    ),
)
_SECTIONS = (
    ("Links and captions", _LINKS),
    ("Download", _DOWNLOAD),
    ("Similarity and safety", _SCORING),
    ("The dataset", _DATASET),
)


if __name__ == "__main__":
    print(reproduction(), end="")
