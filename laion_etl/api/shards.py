"""Shards in a folder or on S3, and making one of a list of URLs: `download`."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any

import pyarrow as pa

from laion_etl.api.captions import checked_captions, languages_of
from laion_etl.api.funnel import Funnel
from laion_etl.core.errors import InputError, StorageError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import MAX_BATCH_PAIRS, batch_name
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import pair_id
from laion_etl.core.stage_stats import Output
from laion_etl.download.shards import shard_writer
from laion_etl.download.stage import download_pairs
from laion_etl.io.storage import Store, open_store
from laion_etl.parse.licence import NO_LICENCE
from laion_etl.settings import Settings, load_settings

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar of samples (webdataset: image, `.txt`, `.json`), and a parquet file with a row for every URL."""

    store: Store
    tar: Output
    parquet: Output

    @classmethod
    def open(cls, path: str | PathLike[str]) -> "Shard":
        """Open a shard that `download` made.

        Args:
            path: Its .tar, a path or s3:// URL; its parquet file is next to it.

        Raises:
            InputError: The path does not end in .tar.
            StorageError: One of the files is missing.
        """
        folder, slash, name = fspath(path).rpartition("/")
        if not name.endswith(".tar"):
            raise InputError(
                f"cannot open the shard {path}: its name does not end in .tar; name the tar file"
            )
        store = open_store(folder or slash or ".")
        parquet = f"{name.removesuffix('.tar')}.parquet"
        return cls(store, _described(store, name), _described(store, parquet))

    @property
    def path(self) -> str:
        """Path or s3:// URL of the tar."""
        return self.store.uri(self.tar.name)

    @property
    def outcomes(self) -> pa.Table:
        """The parquet file, a table of SHARD_SCHEMA: `status` says what became of each URL."""
        with self.store.open(self.parquet.name) as file:
            try:
                return BoundedParquet(file).read(most_rows=MAX_BATCH_PAIRS)
            except (pa.ArrowException, OSError) as error:
                uri = self.store.uri(self.parquet.name)
                raise InputError(f"cannot read {uri}: {error}; download the shard again") from error

    @property
    def funnel(self) -> Funnel:
        """How many URLs gave a sample, and why the others did not."""
        counts = Counter(self.outcomes["status"].to_pylist())
        kept = counts.pop(DownloadStatus.SUCCESS.value, 0)
        dropped = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        return Funnel(kept + counts.total(), kept, dropped)


def download(
    urls: Sequence[str],
    captions: Sequence[str | None] | None = None,
    out: str | PathLike[str] = "shards",
    settings: Settings | None = None,
    number: int = 0,
    **download_settings: Any,
) -> Shard:
    """Download images into the shard `<out>/<number>.tar` and return it; `out` is a folder or s3:// URL.

    A URL that fails is a row with its reason. Politeness, opt-outs and checks of addresses are those of a
    crawl.

    Args:
        urls: At most 100,000 URLs of images.
        captions: One for each URL; None for an image without.
        out: The folder.
        settings: Those to use; without them those of the environment and of laion_etl.toml.
        number: Number of the shard, at most 9 digits. It begins the keys of the samples.
        download_settings: Settings of the download, like `image_size=256`; see docs/configuration.md.

    Raises:
        InputError: There are too many URLs, or another number of captions.
        StorageError: There is such a shard already.
        SettingsError: A setting has a wrong value.
        TypeError: There is no such setting.
    """
    settings = settings or load_settings()
    chosen = replace(settings.download, **download_settings)
    if isinstance(urls, str) or len(urls) > MAX_BATCH_PAIRS:
        raise InputError(f"cannot download into one shard: give a list of at most {MAX_BATCH_PAIRS:,} URLs")
    if not 0 <= number < 10**9:
        raise InputError(f"cannot write shard {number}: its number has at most 9 digits; choose another")
    pairs = _pairs(urls, checked_captions(captions, len(urls)), settings)
    store, stem = open_store(fspath(out)), batch_name(number)
    if any(store.exists(stem + ending) for ending in (".tar", ".parquet")):
        taken = store.uri(f"{stem}.tar")
        raise StorageError(f"cannot write {taken}: there is a shard; choose another number or folder")
    with shard_writer(number, pairs) as shard:
        download_pairs(pairs, chosen, shard)
        return Shard(store, *shard.write(stem, store))


def _pairs(urls: Sequence[str], captions: Sequence[str], settings: Settings) -> list[dict[str, Any]]:
    """Return rows of BATCH_SCHEMA."""
    languages = languages_of(captions, settings)
    return [
        {
            "pair_id": pair_id(url, caption),
            "url": url,
            "caption": caption,
            "language": language,
            "license": NO_LICENCE,
            "page_url": "",
            "caption_source": None,
        }
        for url, caption, language in zip(urls, captions, languages, strict=True)
    ]


def _described(store: Store, name: str) -> Output:
    """Return what a file is now."""
    with store.open(name) as file:
        digest, size = hashlib.sha256(), 0
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return Output(name, size, digest.hexdigest())
