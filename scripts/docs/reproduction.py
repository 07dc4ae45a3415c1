"""docs/reproduction.md: what LAION-5B's makers said they did beside what this pipeline does: `make docs`.

Our column is filled from the defaults of the settings and can't drift from them; the mini crawl's numbers are
checked by the end-to-end test.
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

Generated from `scripts/docs/reproduction.py` by `make docs`; edit it there.

What the makers of LAION-5B said of their collection, beside what this pipeline does with its default
settings. "Original" is taken from their announcement (laion.ai/blog/laion-5b, 2022; its sections on
acquisition and filtering cover what section 3 of arXiv 2210.08402 is about), and where marked with † from the
code of its workers (crawlingathome). Nothing is stated of the original that was not found in one of them; "-"
means that nothing was found.

"Mini crawl" is what `laion-etl demo` comes to: drawn pictures, a tiny CLIP and a web server that misbehaves
on purpose. Its shares show that a rule works, not how the web is. Figures of a crawl of your own are in its
report.

"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A row: what the original says; ours and the mini crawl as texts made from settings and counts."""

    topic: str
    original: str
    ours: Callable[[Settings], str]
    mini: str
    why: str


def reproduction() -> str:
    """docs/reproduction.md as one Markdown text."""
    settings = Settings()
    parts = [_INTRODUCTION]
    for title, claims in _SECTIONS:
        rows = [f"| {c.topic} | {c.original} | {c.ours(settings)} | {c.mini} | {c.why} |" for c in claims]
        heading = (
            "| | original | laion_etl | mini crawl | where it differs, and why |\n|---|---|---|---|---|\n"
        )
        parts.append(f"## {title}\n\n{heading}" + "\n".join(rows) + "\n\n")
    return "".join(parts).rstrip("\n") + "\n"


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
        "a damaged gzip member loses itself, not the rest of its file",
    ),
    Claim(
        "text length",
        "samples with an alt text of less than 5 characters are dropped",
        lambda s: f"under {s.parse.min_alt_chars} characters dropped, cut after {s.parse.max_alt_chars:,}",
        _share("alt_too_short", "links"),
        "counted after repair and folding of white space, so that blanks do not count",
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
            "out, each with a reason"
            if s.parse.refuse_trackers and s.parse.refuse_placeholder_words
            else "kept"
        ),
        "in the report",
        "texts such as IMG_1234.JPG cost a download each and teach nothing; `preset = laion5b` keeps them",
    ),
    Claim(
        "duplicates",
        "removed by a bloom filter based on the URL; later a Spark job over the whole",
        lambda s: f"by {'URL and text' if s.load.dedupe == 'pair' else 'URL'}, a primary key in Postgres",
        f"{MINI_CRAWL['unique']:,} unique pairs",
        "exact: a bloom filter also drops what it has never seen; holds over all crawls of a database; "
        "`dedupe = url` goes by the URL",
    ),
    Claim(
        "store of links",
        "PostgreSQL, filled by COPY, kept at about 500 million records",
        lambda s: f"PostgreSQL, filled by binary COPY over {s.load.connections} connections a partition",
        "-",
        "a crawl that is done can go and stays known ([scaling-postgres.md](scaling-postgres.md))",
    ),
)
_DOWNLOAD = (
    Claim(
        "batches",
        "10,000 links drawn with TABLESAMPLE, so that a batch has the mixture of the whole",
        lambda s: (
            f"{s.plan.batch_size:,} links, at most {s.plan.max_pairs_per_host:,} of a host, hosts interleaved"
        ),
        "of 500",
        "dealt out instead of drawn: no host is asked too often, and the same crawl gives the same batches",
    ),
    Claim(
        "workers",
        "some 300, of 1 to 2 vCPUs, 0.5 to 1 GB and 5 to 10 Mbps each; 10,000 links in 10 to 15 minutes "
        "(11 to 17 links/s)",
        _fixed("as many as wanted; each claims batches under a lease"),
        "-",
        "measured side by side in [benchmarks/RESULTS.md](../benchmarks/RESULTS.md)",
    ),
    Claim(
        "client",
        "asynchronous requests with Trio and asks",
        lambda s: f"trio, an HTTP reader of its own; a link has {s.download.timeout_s:g} s in all its hops",
        "-",
        "asks does not work beside a current trio ([comparison.md](comparison.md))",
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
        "decoders also run in processes with limits of memory and time",
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
        "each kind is a reason in funnel, card and report",
    ),
)
_SCORING = (
    Claim(
        "thresholds",
        "similarity 0.28 for English with CLIP ViT-B/32, 0.26 for the rest with mCLIP, chosen by looking at "
        "results",
        lambda s: (
            f"{s.clip.threshold_en:g} and {s.clip.threshold_other:g} with `{s.clip.model}` "
            f"({s.clip.pretrained}); "
            + ("the same model for all" if not s.clip.other_model else f"`{s.clip.other_model}` for the rest")
        ),
        "0.78 for all: the tiny model's own",
        "a multilingual model is a setting (`LAION_ETL_CLIP_OTHER_MODEL`), because thresholds belong to a "
        "model; `laion-etl calibrate` proposes them",
    ),
    Claim(
        "share dropped",
        "about 90%: from over 50 billion candidates to just below 6 billion",
        _fixed("counted per stage and reason"),
        f"{_share('published', 'images')} of the images kept",
        "the mini crawl has more matching pairs than the web",
    ),
    Claim(
        "suspected illegal",
        "filtered with CLIP embeddings of images and texts as far as possible; † zero-shot categories: what "
        "looks unsafe and under-age together is dropped",
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
        "LAION's own detector can be converted and used (`laion-etl convert-head`)",
    ),
    Claim(
        "watermarks",
        "pwatermark by a model trained on 90,000 samples",
        lambda s: "by prompts where there are some" if not s.safety.watermark_model else "by an image model",
        "in the report",
        "LAION's model is a setting (`LAION_ETL_SAFETY_WATERMARK_MODEL`)",
    ),
)
_DATASET = (
    Claim(
        "size",
        "5.85 billion pairs: 2.32 billion English, 2.26 billion in 100+ other languages, 1.27 billion "
        "without a clear language",
        _fixed("laion-en, laion-multi, laion-nolang"),
        f"{MINI_CRAWL['published']} pairs",
        "LAION-5B took many dumps; here each dump is a version of its own",
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
        "at least instead of over",
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
    ("Links and texts", _LINKS),
    ("Download", _DOWNLOAD),
    ("Similarity and safety", _SCORING),
    ("The dataset", _DATASET),
)


if __name__ == "__main__":
    print(reproduction(), end="")
