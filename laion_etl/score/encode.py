"""From samples to embeddings: prepared by processes, computed on a device, texts by their language's tower.

Each step runs in its own thread (stage.py): one batch is prepared while another is computed, and on a GPU the
next batch is queued before the results of the previous one have come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.device_transfer import DeviceFuture, Floats
from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel
from laion_etl.score.pixels import Pixels
from laion_etl.score.preparer import PreprocessInput
from laion_etl.score.preprocess_pool import Preparers, PreprocessResult
from laion_etl.score.products import row_products
from laion_etl.score.shard_reader import Sample
from laion_etl.score.shared_tables import Tokens
from laion_etl.score.tokens import TextPlan
from laion_etl.score.watermark import WatermarkModel, start_watermarks

Places = NDArray[np.intp]

Towers = tuple[ClipModel, ...]  # the model, and that of other languages if there is one

# Consecutive samples of a shard that a CPU computes together. Texts are sorted by length within a span only,
# and batches hold whole spans, so which samples are computed together depends on the shard alone.
SPAN = 64


def samples_at_once(batch_size: int, device: str) -> int:
    """Samples of a batch: the batch size, on a CPU rounded up to whole spans."""
    return -(-batch_size // SPAN) * SPAN if device == "cpu" else batch_size


@dataclass(frozen=True, slots=True)
class EncodeBatch:
    """Samples that are being prepared. A text of None belongs to a sample that cannot be scored."""

    samples: list[Sample]
    texts: list[str | None]
    towers: Places  # index of the tower that encodes each text
    tokens: tuple[
        Tokens, ...
    ]  # by tower (samples, context); valid for its own texts, after `prepared.wait()`
    prepared: PreprocessResult


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Results of the readable samples at `places`: embeddings (n, dim), cosines and watermarks (n)."""

    places: list[int]
    images: Floats
    captions: Floats
    similarities: Floats
    watermarks: Floats | None


@dataclass(frozen=True, slots=True)
class _Route:
    """Text embeddings of one tower, and image embeddings if its image weights are not the first tower's."""

    rows: Places
    captions: DeviceFuture
    images: DeviceFuture | None


@dataclass(frozen=True, slots=True)
class _Span:
    """Readable samples that are computed together."""

    places: Places
    images: DeviceFuture
    routes: list[_Route]
    watermarks: DeviceFuture | None

    def get(self) -> Embeddings:
        images = self.images.get()
        captions, cosines = np.empty_like(images), np.empty(len(images), np.float32)
        for route in self.routes:
            rows = route.rows
            shown = images[rows] if route.images is None else route.images.get()
            captions[rows] = route.captions.get()
            cosines[rows] = row_products(shown, captions[rows])
        watermarks = None if self.watermarks is None else self.watermarks.get()
        return Embeddings(self.places.tolist(), images, captions, cosines, watermarks)


@dataclass(frozen=True, slots=True)
class InFlightBatch:
    """A batch that a device is computing."""

    batch: EncodeBatch
    spans: list[_Span]

    def get(self) -> Embeddings | None:
        """Waits for the results; None when no sample is readable. The tables are not read afterwards."""
        found = [span.get() for span in self.spans]
        if len(found) < 2:
            return found[0] if found else None
        watermarks = [each.watermarks for each in found if each.watermarks is not None]
        return Embeddings(
            [place for each in found for place in each.places],
            np.concatenate([each.images for each in found]),
            np.concatenate([each.captions for each in found]),
            np.concatenate([each.similarities for each in found]),
            np.concatenate(watermarks) if watermarks else None,
        )


def text_plans(towers: Towers) -> tuple[TextPlan, ...]:
    """Plans of the towers whose texts the preparers can tokenise."""
    return tuple(tower.text_plan for tower in towers if tower.text_plan is not None)


def begin_batch(samples: list[Sample], towers: Towers, preparers: Preparers) -> EncodeBatch:
    """Hands images and texts of readable samples to the preparers; tokenises here the texts they cannot."""
    texts = [sample.text if sample.notes is not None else None for sample in samples]
    english = np.asarray([sample.row["language"] == "en" for sample in samples])
    chosen = np.where(english, 0, len(towers) - 1)
    planned = [tower.text_plan is not None for tower in towers]
    numbers = np.cumsum(planned) - 1  # index of each tower's plan
    materials = [
        PreprocessInput(sample.image, text[:MAX_TEXT_CHARS] if planned[tower] else "", int(numbers[tower]))
        if text is not None
        else PreprocessInput(None)
        for sample, text, tower in zip(samples, texts, chosen.tolist(), strict=True)
    ]
    prepared = preparers.prepare(materials)
    tokens = tuple(
        prepared.tables.tokens[:, : tower.text_plan.context]
        if tower.text_plan is not None
        else _tokens(tower, texts, np.flatnonzero(chosen == number))
        for number, tower in enumerate(towers)
    )
    return EncodeBatch(samples, texts, chosen, tokens, prepared)


def _tokens(tower: ClipModel, texts: Sequence[str | None], places: Places) -> Tokens:
    """Tokens of the texts at these places, in a table with a row for every text."""
    given = [(place, text) for place in places.tolist() if (text := texts[place]) is not None]
    found = tower.tokens_of([text for _, text in given]) if given else np.empty((0, 0), np.int32)
    table = np.zeros((len(texts), found.shape[1]), np.int32)
    table[[place for place, _ in given]] = found
    return table


def compute(batch: EncodeBatch, towers: Towers, watermark: WatermarkModel | None) -> InFlightBatch:
    """Starts the device's work on a batch, once it is prepared."""
    batch.prepared.wait()
    places = np.asarray(batch.prepared.places, np.intp)
    size = SPAN if towers[0].device == "cpu" else max(1, len(batch.samples))
    spans = [places[places // size == number] for number in range(-(-len(batch.samples) // size))]
    return InFlightBatch(batch, [_span(batch, span, towers, watermark) for span in spans if len(span)])


def _span(batch: EncodeBatch, places: Places, towers: Towers, watermark: WatermarkModel | None) -> _Span:
    together = slice(places[0], places[-1] + 1)
    whole = len(places) == together.stop - together.start  # then a view suffices, without a copy
    pixels = tuple(table[together] if whole else table[places] for table in batch.prepared.tables.pixels)
    images = towers[0].start_pixels(pixels[0])
    found = (_route(batch, towers, number, places, pixels[0]) for number in range(len(towers)))
    routes = [route for route in found if route is not None]
    watermarks = None if watermark is None else start_watermarks(watermark, pixels[1], towers[0].device)
    return _Span(places, images, routes, watermarks)


def _route(batch: EncodeBatch, towers: Towers, number: int, places: Places, pixels: Pixels) -> _Route | None:
    """The work of one tower; None when it has no texts."""
    tower = towers[number]
    rows = np.flatnonzero(batch.towers[places] == number)
    if not len(rows):
        return None
    differs = tower.image_sha256 != towers[0].image_sha256
    return _Route(
        rows,
        tower.start_tokens(batch.tokens[number][places[rows]]),
        tower.start_pixels(pixels[rows]) if differs else None,
    )
