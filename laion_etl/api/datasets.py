"""Reading, checking and searching a published dataset: `open_dataset`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import DATASET_FILES, batch_of, scored_stem
from laion_etl.dataset.manifest import Manifest, read_manifest
from laion_etl.dataset.row_streams import ROWS_PER_READ
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, DataFile
from laion_etl.dataset.versions import Release, read_versions
from laion_etl.io.storage import Store, open_store
from laion_etl.io.tarshard import TarError, read_members
from laion_etl.settings import Settings, load_settings

if TYPE_CHECKING:  # search and model take seconds to import
    from laion_etl.publish.verify import VerifyReport
    from laion_etl.score.model import ClipModel
    from laion_etl.search.query import SearchIndex

_NOT_IMAGES = ("txt", "json")  # members of a sample


class Dataset:
    """A version of a published dataset. `manifest` says what is in it and how it was made."""

    def __init__(self, manifest: Manifest, store: Store, settings: Settings) -> None:
        self.manifest = manifest
        self._store = store
        self._settings = settings

    @property
    def version(self) -> str:
        """The name of the version."""
        return self.manifest.release.version

    def rows(self, subset: str | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a subset in tables of up to 16,384, by crawl and SAMPLE_ID; all rows without one.

        A column that an earlier version did not have is null, and so is one of a head that did not score
        the crawl.

        Args:
            subset: Name of a subset, like laion-en.
            columns: Those to read; without them all.

        Raises:
            InputError: There is no such subset or column, or a file cannot be read.
        """
        if subset is not None and subset not in self.manifest.subsets:
            known = ", ".join(self.manifest.subsets)
            raise InputError(
                f"cannot read the subset {subset!r}: the dataset has {known}; choose one of them"
            )
        chosen = LANGUAGE_SUBSETS if subset is None else (subset,)  # those hold every row once
        files = [
            file
            for part in self.manifest.parts
            for name in chosen
            for file in self.manifest.data_files(name, part.crawl)
        ]
        return self._read(files, columns)

    def _read(self, files: Sequence[DataFile], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        heads = [column.field for part in self.manifest.parts for column in part.columns]
        known = [*DATASET_FILES.schema.names, *dict.fromkeys(field.name for field in heads)]
        self._check_columns(columns, known)
        wanted = known if columns is None else list(columns)
        for file in files:
            uri = self._store.uri(file.name)
            with self._store.open(file.name) as raw:
                try:
                    parquet = BoundedParquet(raw)
                    DATASET_FILES.check(parquet.schema_arrow, uri, "see `laion-etl dataset verify`")
                    names = [name for name in wanted if name in parquet.schema_arrow.names]
                    for batch in parquet.iter_batches(ROWS_PER_READ, names):
                        yield DATASET_FILES.upgraded(pa.Table.from_batches([batch]), wanted, heads)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(f"cannot read {uri}: {error}; see `laion-etl dataset verify`") from error

    def _check_columns(self, columns: Sequence[str] | None, known: Sequence[str]) -> None:
        if unknown := [name for name in columns or () if name not in known]:
            raise InputError(f"cannot read the column {unknown[0]!r}: there are {', '.join(known)}")

    def images(self, rows: pa.Table) -> list[bytes | None]:
        """Return the image files of some rows, as they are in the scored shards of the dataset's store.

        Each shard is read up to its last wanted image, so take some rows at a time. None for an image that
        is not there.

        Args:
            rows: A table with the columns `key` and `crawl`.

        Raises:
            InputError: A shard is damaged.
        """
        found: dict[str, bytes] = {}
        wanted: dict[str, set[str]] = {}
        for row in rows.select(["crawl", "key"]).to_pylist():
            stem = scored_stem(row["crawl"], batch_of(int(row["key"])))
            wanted.setdefault(f"{stem}.tar", set()).add(row["key"])
        for name, keys in wanted.items():
            if self._store.exists(name):
                found |= self._images_of(name, keys)
        return [found.get(key) for key in rows["key"].to_pylist()]

    def _images_of(self, name: str, keys: set[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._store.open(name) as file:
            try:
                for member, data in read_members(file):
                    key, _, ending = member.partition(".")
                    if key in keys and ending not in _NOT_IMAGES:
                        found[key] = data
                        if len(found) == len(keys):
                            break
            except TarError as error:
                raise InputError(f"cannot read {self._store.uri(name)}: {error}; score it again") from error
        return found

    def verify(self) -> "VerifyReport":
        """Check every file, byte, count and row against the manifest; `problems` of the result is a list."""
        from laion_etl.publish.verify import verify_version

        release = self.manifest.release
        return verify_version(release.name, release.version, self._store)

    def search(self, text: str, top: int = 10, **filters: Any) -> pa.Table:
        """Return the rows whose images are nearest to a text, best first, with their cosine as `score`.

        `laion-etl search index` makes the index; the settings must name the model that scored the dataset.

        Args:
            text: What the images should show.
            top: The most rows returned.
            filters: Those of `laion-etl search query`, like `languages=("en",)` or `min_aesthetic=5`.

        Raises:
            InputError: The index is missing, the model is another, or the text is empty.
            TypeError: There is no such filter.
        """
        from laion_etl.search.filters import Filters

        if not text.strip():
            raise InputError("cannot search for an empty text: say what the images should show")
        index, model = self._index, self._model
        hits = index.search(model.embed_texts([text])[0], top, Filters(**filters))
        schema = DATASET_FILES.schema
        rows = [{"score": hit.score, **{name: hit.row.get(name) for name in schema.names}} for hit in hits]
        return pa.Table.from_pylist(rows, pa.schema([pa.field("score", pa.float32()), *schema]))

    @cached_property
    def _index(self) -> "SearchIndex":
        from laion_etl.search.published_rows import PublishedVersion
        from laion_etl.search.query import open_index

        return open_index(PublishedVersion(self.manifest), self._settings, self._store)

    @cached_property
    def _model(self) -> "ClipModel":
        from laion_etl.score.model import load_model
        from laion_etl.search.query import check_model

        model = load_model(self._settings.clip)
        check_model(self._index, model.name, model.weights_sha256)
        return model


def open_dataset(
    path: str | PathLike[str], version: str | None = None, settings: Settings | None = None
) -> Dataset:
    """Open a version of the dataset at `<store>/dataset/<name>`, a folder or s3:// URL.

    Args:
        path: The folder of the dataset.
        version: A version; without it the current one.
        settings: Those to search with; without them those of the environment and of laion_etl.toml.

    Raises:
        InputError: There is no such dataset or version.
    """
    place, _, name = fspath(path).rstrip("/").rpartition("/")
    store, _, folder = place.rpartition("/")
    if folder != "dataset":
        raise InputError(
            f"cannot open {path}: a dataset is a folder like data/dataset/laion; name that folder"
        )
    opened = open_store(store or ("/" if place.startswith("/") else "."))
    release = Release(name, version or "current")  # refuses what cannot be names of folders
    found = read_versions(release.name, opened).find(version or "")
    return Dataset(read_manifest(release.name, found, opened), opened, settings or load_settings())
