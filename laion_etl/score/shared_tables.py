"""The memory that preparers share with the stage: tables with a row for each sample."""

import json
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.plain_json import parse_json
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.tokens import TextPlan

Tokens = NDArray[np.int32]

WAITING, READY, UNREADABLE = 0, 1, 2  # of a row

_TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Plans:
    """The outputs per sample: pixels for every image model, tokens for one of the text towers."""

    pixels: tuple[PixelPlan, ...]
    texts: tuple[TextPlan, ...] = ()

    @property
    def context(self) -> int:
        """Tokens of a row."""
        return max((plan.context for plan in self.texts), default=0)

    @property
    def bytes(self) -> int:
        """Size of a row in all tables."""
        return _TOKEN_BYTES * self.context + sum(plan.bytes for plan in self.pixels) + 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plans":
        document = parse_json(text)
        return cls(
            tuple(PixelPlan(**plan) for plan in document["pixels"]),
            tuple(TextPlan(**plan) for plan in document["texts"]),
        )


@dataclass(frozen=True, slots=True)
class Tables:
    """Tokens (rows, context), RGB pixels (rows, side, side, 3) by plan, and the state of each row."""

    tokens: Tokens
    pixels: tuple[Pixels, ...]
    states: NDArray[np.uint8]

    def part(self, start: int, rows: int) -> "Tables":
        """Some of the rows, in the same memory."""
        chosen = slice(start, start + rows)
        return Tables(self.tokens[chosen], tuple(table[chosen] for table in self.pixels), self.states[chosen])


def tables(memory: mmap.mmap, plans: Plans) -> Tables:
    """The shared memory as its tables, one after the other."""
    everything = np.frombuffer(memory, np.uint8)
    rows = len(everything) // plans.bytes
    widths = [_TOKEN_BYTES * plans.context, *(plan.bytes for plan in plans.pixels), 1]
    tokens, *pixels, states = _cut(everything, [rows * width for width in widths])
    return Tables(
        tokens.view(np.int32).reshape(rows, plans.context),
        tuple(
            part.reshape(rows, plan.side, plan.side, 3)
            for part, plan in zip(pixels, plans.pixels, strict=True)
        ),
        states,
    )


def _cut(everything: NDArray[np.uint8], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    ends = np.cumsum(sizes)
    return [everything[end - size : end] for end, size in zip(ends, sizes, strict=True)]
