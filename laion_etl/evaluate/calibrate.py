"""Thresholds from samples: the similarity that keeps a given share, or best separates right from wrong.

The scored shards hold the similarity of every sample, including dropped ones, so scoring a few shards once is
enough to choose thresholds; comparing another choice needs no new scoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.ids import INDEX_DIGITS, is_sample_key
from laion_etl.core.quantities import first_in_line
from laion_etl.dataset.model_text import with_weights, without_device
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, find_scored, read_batch
from laion_etl.evaluate.best_limit import best_limit
from laion_etl.evaluate.label_file import rows_by_key
from laion_etl.io.storage import Store

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COLUMNS = ["key", "language", "similarity"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold for one route of languages, and what it would do to the samples it was made from."""

    route: str  # en or other
    samples: int
    quantiles: dict[float, float]
    threshold: float
    kept: float
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Similarities:
    """Similarity by key, for `en` and `other`, and the model that computed them.

    `without`: the keys of samples that have none. `batches`: those that were named, if any were.
    """

    model: str
    by_route: Mapping[str, Mapping[str, float]]
    without: frozenset[str] = frozenset()
    batches: frozenset[int] = frozenset()


def read_similarities(crawl: str, batches: Sequence[int], store: Store) -> Similarities:
    """Similarities of these scored batches, or of all where none is named.

    Raises InputError when one has not been scored, or none at all, and when several models scored them.
    """
    scored = find_scored(crawl, store)
    chosen = _chosen(scored, batches)
    models = _models(chosen)
    if len(models) > 1:
        raise InputError(
            f"cannot compare similarities of several models ({'; '.join(models)}): name batches of one of "
            "them with --shard, or score all with `laion-etl stage score --again`"
        )
    found: dict[str, dict[str, float]] = {"en": {}, "other": {}}
    without = set()
    for batch in chosen:
        for rows in read_batch(scored, batch, store):
            for row in rows.select(_COLUMNS).to_pylist():
                if row["similarity"] is None:
                    without.add(row["key"])
                else:
                    found["en" if row["language"] == "en" else "other"][row["key"]] = row["similarity"]
    return Similarities(models[0] if models else "", found, frozenset(without), frozenset(batches))


def _models(batches: Sequence[ScoredBatch]) -> list[str]:
    """Return what the similarities depend on. Precision and device make small differences only."""
    pairs = {(without_device(batch.model), without_device(batch.other_model)) for batch in batches}
    first, other = with_weights(one for one, _ in pairs), with_weights(two for _, two in pairs)
    known = {(first[one], other[two]) for one, two in pairs}
    return sorted(f"{one}, and {two}" if two else one for one, two in known)


def _chosen(scored: ScoredCrawl, batches: Sequence[int]) -> list[ScoredBatch]:
    by_number = {batch.number: batch for batch in scored.batches}
    if missing := sorted(set(batches) - set(by_number)):
        shown = first_in_line([*map(str, missing)], 5)
        raise InputError(
            f"cannot read batches {shown}: not scored, or not planned in {scored.crawl}; "
            "run `laion-etl stage score` on them first"
        )
    return [by_number[number] for number in batches] or list(scored.batches)


def read_labels(path: Path, samples: Similarities) -> dict[str, bool]:
    """Keys with 1 or 0 from a CSV file with the columns `key` and `label`: whether text and image match.

    Those of samples without a similarity, and of other batches than were named, are left out. Raises
    InputError for any other key that is not one of the samples.
    """
    found = {}
    for key, row in rows_by_key(path).items():
        label = row.truth("label")
        if any(key in by_key for by_key in samples.by_route.values()):
            found[key] = label
        elif key not in samples.without and not _is_of_another_batch(key, samples.batches):
            raise row.error(f"there is no scored sample {key[:40]!r}")
    return found


def _is_of_another_batch(key: str, named: frozenset[int]) -> bool:
    return bool(named) and is_sample_key(key) and int(key[:-INDEX_DIGITS]) not in named


def propose(similarities: Mapping[str, Mapping[str, float]], keep: float) -> list[Proposal]:
    """For each route with samples the highest threshold that keeps at least the share `keep` of them."""
    if not 0 < keep <= 1:
        raise InputError(f"cannot keep a share of {keep:g}: it must be above 0 and at most 1")
    found = []
    for route, by_key in similarities.items():
        if not by_key:
            continue
        values = np.sort(np.fromiter(by_key.values(), float))
        threshold = float(values[len(values) - int(np.ceil(keep * len(values)))])
        found.append(_proposal(route, values, threshold))
    return found


def propose_from_labels(
    similarities: Mapping[str, Mapping[str, float]], labels: Mapping[str, bool]
) -> list[Proposal]:
    """The threshold with the best F1, the lower of equals, of each route with labels of both kinds."""
    found = []
    for route, by_key in similarities.items():
        known = [key for key in by_key if key in labels]
        values = np.asarray([by_key[key] for key in known], np.float64)
        matching = np.asarray([labels[key] for key in known], np.bool_)
        threshold = best_limit(values, matching)
        if threshold is None:
            continue
        kept = values >= threshold
        right = int((kept & matching).sum())
        proposal = _proposal(route, np.sort(np.fromiter(by_key.values(), float)), threshold)
        precision, recall = right / int(kept.sum()), right / int(matching.sum())
        found.append(replace(proposal, precision=precision, recall=recall))
    if not found:
        raise InputError(
            "cannot use the labels: no route has both matching and mismatching samples; label more"
        )
    return found


def _proposal(route: str, values: Floats, threshold: float) -> Proposal:
    quantiles = {share: float(np.quantile(values, share)) for share in QUANTILES}
    return Proposal(route, len(values), quantiles, threshold, float((values >= threshold).mean()))
