"""From samples to embeddings: prepared by processes, computed on a device, texts by their language's tower.

The steps run in threads of their own (stage.py): a chunk is prepared while others are computed, and on a GPU
the next one is queued before the results of one have come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel
from laion_etl.score.pixels import Pixels
from laion_etl.score.preparers import Material, Prepared, Preparers
from laion_etl.score.samples import Sample
from laion_etl.score.shared import Tokens
from laion_etl.score.tokens import TextPlan
from laion_etl.score.transfer import Floats, Later
from laion_etl.score.watermark import WatermarkModel

Places = NDArray[np.intp]

Towers = tuple[ClipModel, ...]  # the model, and that of other languages if there is one


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
class Computing:
    """A chunk that a device works on."""

    chunk: Chunk
    places: list[int]
    images: Later | None  # None: nothing is readable
    routes: list[_Route]
    watermarks: Floats | None

    def get(self) -> Embeddings | None:
        """Waits for the results; None when no sample is readable. After it nobody looks at the tables."""
        if self.images is None:
            return None
        images = self.images.get()
        captions, cosines = np.empty_like(images), np.empty(len(images), np.float32)
        for route in self.routes:
            rows = route.rows
            shown = images[rows] if route.images is None else route.images.get()
            captions[rows] = route.captions.get()
            cosines[rows] = (shown * captions[rows]).sum(axis=1)
        return Embeddings(self.places, images, captions, cosines, self.watermarks)


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
    places, tables = chunk.prepared.places, chunk.prepared.tables
    if not places:
        return Computing(chunk, places, None, [], None)
    everything = len(places) == len(chunk.samples)
    pixels = tables.pixels if everything else tuple(table[places] for table in tables.pixels)
    images = towers[0].pixels_later(pixels[0])
    found = (_route(chunk, towers, number, np.asarray(places), pixels[0]) for number in range(len(towers)))
    routes = [route for route in found if route is not None]
    watermarks = None if watermark is None else watermark.score(pixels[1])
    return Computing(chunk, places, images, routes, watermarks)


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
