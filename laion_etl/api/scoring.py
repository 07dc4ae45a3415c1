"""Scoring images with captions: `Scorer`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

import pyarrow as pa

from laion_etl.api.captions import checked_captions, checked_languages, languages_of
from laion_etl.api.shards import Shard
from laion_etl.core.errors import InputError
from laion_etl.core.head_columns import with_columns
from laion_etl.core.schemas import SCORED_SCHEMA, SHARD_SCHEMA
from laion_etl.io.remote_files import read_input
from laion_etl.score.device_transfer import pinned
from laion_etl.score.encode import samples_at_once
from laion_etl.score.pixels import format_of
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import Scored, load_scorer
from laion_etl.score.shard_reader import Sample, chunked, read_samples
from laion_etl.settings import Settings, load_settings

Image = str | PathLike[str] | bytes  # a path or URL, or the bytes of the file

SCORE_COLUMNS = tuple(name for name in SCORED_SCHEMA.names if name not in SHARD_SCHEMA.names)
_IMAGE_SCHEMA = pa.schema([SCORED_SCHEMA.field(name) for name in ("caption", "language", *SCORE_COLUMNS)])


class Scorer:
    """A CLIP model with its thresholds, safety prompts and heads. Loading it takes seconds."""

    def __init__(self, settings: Settings) -> None:
        """Load what the settings name. Raises ModelError for what cannot be loaded."""
        self._settings = settings
        self._scorer = load_scorer(settings)

    @classmethod
    def from_pretrained(
        cls, name: str, pretrained: str, settings: Settings | None = None, **clip_settings: Any
    ) -> "Scorer":
        """Load a model of open_clip, or laion-etl-tiny with "scenes", by its name and weights.

        Args:
            name: Name of the model, like ViT-B-32.
            pretrained: Name of its weights, like openai, or a checkpoint file.
            settings: All others; without them those of the environment and of laion_etl.toml.
            clip_settings: Settings of the model, like `device="cpu"`; see docs/configuration.md.

        Raises:
            ModelError: The model, or a head that the settings name, cannot be loaded.
            SettingsError: A setting has a wrong value.
            TypeError: There is no such setting.
        """
        settings = settings or load_settings()
        clip = replace(settings.clip, model=name, pretrained=pretrained, **clip_settings)
        return cls(replace(settings, clip=clip))

    def score(
        self,
        images: Shard | Sequence[Image],
        captions: Sequence[str | None] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> pa.Table:
        """Score a shard, or images with a caption each, and return a row per sample, in order.

        For a shard a table of SCORED_SCHEMA, for images its columns `caption`, `language` and the scores;
        columns of custom heads come last. `reason` is null for what a dataset would keep. An image that
        cannot be decoded, or has a blank caption, is a row without scores whose reason is `unreadable`.

        Args:
            images: A shard; or paths, URLs or the bytes of image files.
            captions: One for each image; a shard has its own.
            languages: Codes like `en`, one for each image, '' or None for no language. Capitals, scripts and
                regions do not matter. Left out, they are detected.

        Raises:
            InputError: A shard is damaged, a file cannot be read, the lists differ in length, or one has an
                entry that is not an image, a text or a code.
        """
        if isinstance(images, Shard):
            if captions is not None or languages is not None:
                raise InputError("cannot use other captions or languages for a shard: it has its own")
            return self._table(self._of_shard(images), SCORED_SCHEMA)
        if isinstance(images, (str, bytes, PathLike)):
            raise InputError("cannot score one image: give a list of images and a list of captions")
        texts = checked_captions(captions, len(images))
        if languages is None:
            codes = languages_of(texts, self._settings)
        else:
            codes = checked_languages(languages, len(texts))
        return self._table(self._samples(images, texts, codes), _IMAGE_SCHEMA)

    def _table(self, samples: Iterator[Sample], known: pa.Schema) -> pa.Table:
        schema = with_columns(known, self._scorer.columns)
        rows = [scored.sample.row | scored.columns for scored in self._scored(samples)]
        plain = [{name: row.get(name) for name in schema.names} for row in rows]
        return pa.Table.from_pylist(plain, schema)

    def _scored(self, samples: Iterator[Sample]) -> Iterator[Scored]:
        scorer, clip = self._scorer, self._settings.clip
        device = scorer.model.device
        most = samples_at_once(clip.batch_size, device)
        with (
            Preparers(scorer.plans, most, 1, clip.preparers) as preparers,
            pinned(preparers.memory, device),
        ):
            for chunk in chunked(samples, most):
                yield from scorer.score(scorer.compute(scorer.begin(chunk, preparers)), preparers)

    def _of_shard(self, shard: Shard) -> Iterator[Sample]:
        return read_samples(shard.store, shard.parquet, shard.tar, shard.funnel.kept)

    def _samples(
        self, images: Sequence[Image], captions: Sequence[str], languages: Sequence[str]
    ) -> Iterator[Sample]:
        for number, (image, caption, language) in enumerate(zip(images, captions, languages, strict=True)):
            data = self._bytes(number, image)
            members = {format_of(data) or "": data, "txt": caption.encode(), "json": b"{}"}
            yield Sample({"key": str(number), "caption": caption, "language": language}, members)

    def _bytes(self, number: int, image: Image) -> bytes:
        if isinstance(image, bytes):
            return image
        if not isinstance(image, (str, PathLike)):
            raise InputError(
                f"cannot score image {number:,}: it is a {type(image).__name__}; give a path, a URL or the "
                "bytes of its file"
            )
        return read_input(fspath(image), self._settings.download.max_bytes)
