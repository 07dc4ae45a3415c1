"""Captions of the scenes that the demo's CLIP is trained on, as tokens."""

import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch

from laion_etl.core.errors import ModelError
from laion_etl.minicrawl.backgrounds import BACKGROUNDS
from laion_etl.minicrawl.lexicon import LEXICONS
from laion_etl.minicrawl.scenes import COLOURS, LAYOUTS, SHAPES, Scene
from laion_etl.score import demo_model
from laion_etl.score.openclip import open_clip
from laion_etl.score.tokens import ClipTokenizer, text_plan


class CaptionTable:
    """Tokens of every caption of every scene in every language, made once."""

    def __init__(self) -> None:
        theirs = open_clip().get_tokenizer(demo_model.NAME)
        tokenize = _fast_tokenizer(theirs)
        self._tokens: dict[tuple[int, ...], torch.Tensor] = {}
        for colour, shape, background, layout in product(COLOURS, SHAPES, BACKGROUNDS, [*LAYOUTS, "hazard"]):
            hazard = layout == "hazard"
            texts = [
                template.format(
                    subject=lexicon.subject(colour, shape, layout, hazard=hazard),
                    place=lexicon.places[background],
                )
                for lexicon in LEXICONS.values()
                for template in lexicon.templates
            ]
            scene = Scene(colour, shape, background, layout, hazard)
            self._tokens[attributes(scene)] = tokenize(texts)
        self.seen = torch.unique(torch.cat(list(self._tokens.values())))
        self.unknown = next(i for i in range(len(self.seen) + 1) if i not in set(self.seen.tolist()))
        self._start, self._end = theirs.sot_token_id, theirs.eot_token_id

    def sample(self, scene: Scene, rng: random.Random) -> list[int]:
        """Tokens of a random caption; one in five is surrounded by unknown words."""
        rows = self._tokens[attributes(scene)]
        row = rows[rng.randrange(len(rows))].tolist()
        tokens = row[1 : row.index(self._end)]
        if rng.random() < 0.2:
            before, after = rng.randint(0, 4), rng.randint(0, 4)
            tokens = [self.unknown] * before + tokens + [self.unknown] * after
        return [self._start, *tokens[: len(row) - 2], self._end]

    def sample_unknown(self, rng: random.Random) -> list[int]:
        """Tokens of a text about something else: unknown words with a few known ones."""
        known = self.seen.tolist()[1:-2]
        words = [rng.choice(known) if rng.random() < 0.2 else self.unknown for _ in range(rng.randint(1, 24))]
        return [self._start, *words, self._end]


def _fast_tokenizer(theirs: Any) -> Callable[[Sequence[str]], torch.Tensor]:
    """The same tokens (n, context) in a fifth of the time."""
    plan = text_plan(theirs)
    if plan is None:
        raise ModelError(f"{demo_model.NAME} does not have CLIP's tokenizer")
    ours, context = ClipTokenizer(plan), plan.context

    def tokenize(texts: Sequence[str]) -> torch.Tensor:
        rows = [ours(text) for text in texts]
        return torch.tensor([row + [0] * (context - len(row)) for row in rows])

    return tokenize


def attributes(scene: Scene) -> tuple[int, ...]:
    """Indexes of colour, shape, background and layout; the hazard sign counts as a layout."""
    layout = len(LAYOUTS) if scene.hazard else list(LAYOUTS).index(scene.layout)
    return (
        list(COLOURS).index(scene.colour),
        list(SHAPES).index(scene.shape),
        list(BACKGROUNDS).index(scene.background),
        layout,
    )


CLASSES = (len(COLOURS), len(SHAPES), len(BACKGROUNDS), len(LAYOUTS) + 1)
