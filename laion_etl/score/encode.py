"""From samples to embeddings: prepared by processes, computed on a device, texts by their language's tower.

The steps run in threads of their own (stage.py): a chunk is prepared while others are computed, and on a GPU
the next one is queued before the results of one have come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.device_transfer import Floats, Later
from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel
from laion_etl.score.pixels import Pixels
from laion_etl.score.preprocess_pool import Material, Prepared, Preparers
from laion_etl.score.products import row_products
from laion_etl.score.shard_reader import Sample
from laion_etl.score.shared_tables import Tokens
from laion_etl.score.tokens import TextPlan
from laion_etl.score.watermark import WatermarkModel, watermarks_later

Places = NDArray[np.intp]

Towers = tuple[ClipModel, ...]  # the model, and that of other languages if there is one

# Consecutive samples of a shard that a CPU computes together: texts are sorted by length among them only, and
# chunks hold whole spans, so that it follows from the shard alone what is computed with what.
SPAN = 64


def samples_at_once(batch_size: int, device: str) -> int:
    """Samples of a chunk: the batch size, on a CPU rounded up to whole spans."""
    return -(-batch_size // SPAN) * SPAN if device == "cpu" else batch_size


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples that are being prepared. A text of None is that of a sample nobody can score."""

    samples: list[Sample]
    texts: list[str | None]
    towers: Places  # which one each text is for
    tokens: tuple[Tokens, ...]  # by tower (samples, context); of its own texts, after `prepared.wait()`
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Of the readable samples, `places`: embeddings (n, dim), cosines (n), watermarks (n) or None."""

    places: list[int]
    images: Floats
    captions: Floats
    similarities: Floats
    watermarks: Floats | None


@dataclass(frozen=True, slots=True)
class _Route:
    """What a tower makes of its texts; of their images only when it sees them with other eyes."""

    rows: Places
    captions: Later
    images: Later | None


@dataclass(frozen=True, slots=True)
class _Span:
    """Readable samples that are computed together."""

    places: Places
    images: Later
    routes: list[_Route]
    watermarks: Later | None

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
class Computing:
    """A chunk that a device works on."""

    chunk: Chunk
    spans: list[_Span]

    def get(self) -> Embeddings | None:
        """Waits for the results; None when no sample is readable. After it nobody looks at the tables."""
        found = [span.get() for span in self.spans]
        if len(found) < 2:
            return found[0] if found else None
        marks = [each.watermarks for each in found if each.watermarks is not None]
        return Embeddings(
            [place for each in found for place in each.places],
            np.concatenate([each.images for each in found]),
            np.concatenate([each.captions for each in found]),
            np.concatenate([each.similarities for each in found]),
            np.concatenate(marks) if marks else None,
        )


def text_plans(towers: Towers) -> tuple[TextPlan, ...]:
    """Of the towers whose texts can be tokenised by preparers."""
    return tuple(tower.text_plan for tower in towers if tower.text_plan is not None)


def begin_chunk(samples: list[Sample], towers: Towers, preparers: Preparers) -> Chunk:
    """Hands pictures and texts of readable samples to the preparers; texts they can't tokenise are, here."""
    texts = [sample.text if sample.notes is not None else None for sample in samples]
    english = np.asarray([sample.row["language"] == "en" for sample in samples])
    chosen = np.where(english, 0, len(towers) - 1)
    planned = [tower.text_plan is not None for tower in towers]
    numbers = np.cumsum(planned) - 1  # of their plans
    materials = [
        Material(sample.image, text[:MAX_TEXT_CHARS] if planned[tower] else "", int(numbers[tower]))
        if text is not None
        else Material(None)
        for sample, text, tower in zip(samples, texts, chosen.tolist(), strict=True)
    ]
    prepared = preparers.prepare(materials)
    tokens = tuple(
        prepared.tables.tokens[:, : tower.text_plan.context]
        if tower.text_plan is not None
        else _tokens(tower, texts, np.flatnonzero(chosen == number))
        for number, tower in enumerate(towers)
    )
    return Chunk(samples, texts, chosen, tokens, prepared)


def _tokens(tower: ClipModel, texts: Sequence[str | None], places: Places) -> Tokens:
    """Tokens of the texts at these places, in a table for all."""
    given = [(place, text) for place in places.tolist() if (text := texts[place]) is not None]
    found = tower.tokens_of([text for _, text in given]) if given else np.empty((0, 0), np.int32)
    table = np.zeros((len(texts), found.shape[1]), np.int32)
    table[[place for place, _ in given]] = found
    return table


def compute(chunk: Chunk, towers: Towers, watermark: WatermarkModel | None) -> Computing:
    """Starts the device's work on a chunk, once it is prepared."""
    chunk.prepared.wait()
    places = np.asarray(chunk.prepared.places, np.intp)
    size = SPAN if towers[0].device == "cpu" else max(1, len(chunk.samples))
    spans = [places[places // size == number] for number in range(-(-len(chunk.samples) // size))]
    return Computing(chunk, [_span(chunk, span, towers, watermark) for span in spans if len(span)])


def _span(chunk: Chunk, places: Places, towers: Towers, watermark: WatermarkModel | None) -> _Span:
    together = slice(places[0], places[-1] + 1)
    whole = len(places) == together.stop - together.start  # then nothing need be copied
    pixels = tuple(table[together] if whole else table[places] for table in chunk.prepared.tables.pixels)
    images = towers[0].pixels_later(pixels[0])
    found = (_route(chunk, towers, number, places, pixels[0]) for number in range(len(towers)))
    routes = [route for route in found if route is not None]
    marks = None if watermark is None else watermarks_later(watermark, pixels[1], towers[0].device)
    return _Span(places, images, routes, marks)


def _route(chunk: Chunk, towers: Towers, number: int, places: Places, pixels: Pixels) -> _Route | None:
    """None: no text is for this tower."""
    tower = towers[number]
    rows = np.flatnonzero(chunk.towers[places] == number)
    if not len(rows):
        return None
    own_eyes = tower.image_sha256 != towers[0].image_sha256
    return _Route(
        rows,
        tower.tokens_later(chunk.tokens[number][places[rows]]),
        tower.pixels_later(pixels[rows]) if own_eyes else None,
    )
