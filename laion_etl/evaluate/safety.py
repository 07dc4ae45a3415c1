"""How well safety tags and scores agree with your own labels.

The shipped prompts for real models have never been measured on labelled images: before you rely on them,
label some hundred images of the kind at hand and measure. A sample is labelled 1 if it is unsafe. Measured
are the tag, as NSFW alone and together with UNSURE, and `punsafe` at several limits. What is not defined,
such as the precision of a tag that no image has, is None.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.dataset.scored import find_scored, read_batch
from laion_etl.evaluate.best_limit import best_limit
from laion_etl.evaluate.embed import embedded
from laion_etl.evaluate.label_file import Row, read_rows, rows_by_key
from laion_etl.io.storage import Store
from laion_etl.score.head import HeadInput, is_scored, score_all
from laion_etl.score.pixels import format_of
from laion_etl.score.preparer import ImageFile
from laion_etl.score.safety import NsfwTag, SafetyJudge
from laion_etl.score.scorer import SampleScorer

LIMITS = (0.1, 0.25, 0.5, 0.75, 0.9)
_COLUMNS = ["key", "nsfw_tag", "punsafe"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sample with its label, and what the heads say about it."""

    unsafe: bool
    tag: str
    punsafe: float
    underage: bool | None = None  # a label, if there is one
    suspected: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of what a rule finds, the share that is labelled so; of what is labelled so, the share it finds."""

    rule: str
    found: int
    right: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class SafetyReport:
    """The result: counts, the rules, and the limit of `punsafe` with the best F1 (the lower of equals)."""

    samples: int
    unsafe: int
    not_scored: int
    rules: tuple[Agreement, ...]
    best_limit: float | None


def measure(samples: Sequence[Labelled], not_scored: int) -> SafetyReport:
    """Compare labels with tags and scores. Raises InputError if there are no samples."""
    if not samples:
        raise InputError(
            f"cannot measure safety: none of the {not_scored:,} labelled samples has a score; check them"
        )
    unsafe = np.asarray([sample.unsafe for sample in samples])
    tags = np.asarray([sample.tag for sample in samples])
    scores = np.asarray([sample.punsafe for sample in samples], np.float64)
    best = best_limit(scores, unsafe)
    limits = sorted({*LIMITS, *([best] if best is not None else [])})
    rules = [
        _agreement("tag NSFW", tags == NsfwTag.NSFW, unsafe),
        _agreement("tag NSFW or UNSURE", tags != NsfwTag.UNLIKELY, unsafe),
        *(_agreement(f"punsafe >= {limit:.4g}", scores >= limit, unsafe) for limit in limits),
    ]
    known = [sample for sample in samples if sample.underage is not None]
    if known:
        suspected, labels = (
            np.asarray([bool(getattr(sample, name)) for sample in known])
            for name in ("suspected", "underage")
        )
        rules.append(_agreement("suspected under age", suspected, labels))
    return SafetyReport(len(samples), int(unsafe.sum()), not_scored, tuple(rules), best)


def image_labels(path: Path) -> list[Row]:
    """Read and check the labels of images, before a model is loaded.

    The columns are `image` (a path, relative to the file) and `label`; there may be `caption` and `underage`.
    Raises InputError for a line that cannot be used.
    """
    rows = read_rows(path, ("image", "label"))
    for row in rows:
        row.truth("label")
        _underage(row)
        _open_image(row).close()
    return rows


def labelled_images(rows: Sequence[Row], scorer: SampleScorer, preparers: int) -> tuple[list[Labelled], int]:
    """Score the images that the lines of `image_labels` name; return them and how many have no score.

    `preparers` as for `embedded`.
    """
    found: list[Labelled] = []
    lost = 0
    judge = next(head for head in scorer.heads if isinstance(head, SafetyJudge))
    numbered = ((_image(row), number) for number, row in enumerate(rows))
    for images, places, unreadable in embedded(scorer.model, numbered, preparers):
        lost += unreadable
        captions = [rows[place].values.get("caption", "") for place in places]
        scores = score_all(scorer.heads, HeadInput(images, captions)) if places else {}
        # The columns leave out suspicions that decide nothing.
        verdicts = judge.judge(images, captions) if places else []
        for i, place in enumerate(places):
            punsafe = scores["punsafe"][i]
            if punsafe is None or not is_scored([punsafe]):
                lost += 1
                continue
            row, suspected = rows[place], verdicts[i].suspected_underage
            tag = scores["nsfw_tag"][i]
            found.append(Labelled(row.truth("label"), tag, punsafe, _underage(row), suspected))
    return found, lost


def labelled_samples(path: Path, crawl: str, store: Store) -> tuple[list[Labelled], int]:
    """Look up the scored samples that a label file names by `key`; return them and how many have no score.

    Raises InputError for a key that the crawl does not have.
    """
    rows = rows_by_key(path)
    labels = {key: row.truth("label") for key, row in rows.items()}
    found: list[Labelled] = []
    missing = dict(rows)
    for key, tag, punsafe in _scored_rows(crawl, store):
        if missing.pop(key, None) is not None and tag is not None and punsafe is not None:
            found.append(Labelled(labels[key], tag, punsafe))
    for key, row in missing.items():
        raise row.error(f"{crawl} has no scored sample {key[:40]!r}")
    return found, len(rows) - len(found)


def scored_by(crawl: str, store: Store) -> dict[str, list[str]]:
    """Return what scored a crawl: models, and where safety tags come from."""
    scored = find_scored(crawl, store)
    return {"models": list(scored.coverage.all_models), "safety": list(scored.safety)}


def _scored_rows(crawl: str, store: Store) -> Iterator[tuple[str, str | None, float | None]]:
    scored = find_scored(crawl, store)
    for batch in scored.batches:
        for rows in read_batch(scored, batch, store):
            columns = (rows.column(name).to_pylist() for name in _COLUMNS)
            yield from zip(*columns, strict=True)


def _underage(row: Row) -> bool | None:
    return row.truth("underage") if row.values.get("underage") else None


def _image(row: Row) -> ImageFile:
    with _open_image(row) as file:
        data = file.read()
    return format_of(data) or "jpg", data


def _open_image(row: Row) -> BinaryIO:
    try:
        return (row.path.parent / row.values["image"]).open("rb")
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise row.error(f"the image {row.values['image'][:200]!r} cannot be opened ({cause})") from error


def _agreement(rule: str, found: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Agreement:
    count, wanted, right = int(found.sum()), int(labels.sum()), int((found & labels).sum())
    return Agreement(rule, count, right, right / count if count else None, right / wanted if wanted else None)
