"""Embeddings of a published dataset for others' tools: row i of every file belongs to row i of the others."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.schemas import scored_stem
from laion_etl.io.storage import Guard, LocalStore, NewFile
from laion_etl.search import embeddings
from tests.score.conftest import CRAWL
from tests.search.conftest import World


def test_rows_and_embeddings_are_paired_by_their_order(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as embedding-reader reads them: all files of an ending below a folder, sorted."""
    monkeypatch.setenv("LAION_ETL_STORE", str(world.store.root))
    monkeypatch.setattr(embeddings, "_ROWS_PER_FILE", 1)  # a file for each batch
    name = world.settings.publish.name
    command = ["search", "embeddings", str(tmp_path), "--name", name]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"{world.published.rows} rows" in result.output
    stored = {}
    for batch in (1, 2):
        stem = world.store.root / scored_stem(CRAWL, batch)
        table = pq.read_table(stem.with_name(f"{stem.name}.parquet"))
        keys = [k for k, reason in zip(table["key"], table["reason"], strict=True) if not reason.is_valid]
        for kind in ("img_emb", "text_emb"):
            matrix = np.load(stem.with_name(f"{stem.name}_{kind}.npy"))
            stored |= {(kind, key.as_py()): row for key, row in zip(keys, matrix, strict=True)}
    metadata = [pq.read_table(path) for path in sorted(tmp_path.glob("metadata/**/*.parquet"))]
    keys = [key for table in metadata for key in table["key"].to_pylist()]
    assert len(metadata) == 2
    assert len(keys) == world.published.rows
    assert {"url", "caption"} <= set(metadata[0].column_names)
    for kind in ("img_emb", "text_emb"):
        matrices = [np.load(path) for path in sorted(tmp_path.glob(f"{kind}/**/*.npy"))]
        assert [len(matrix) for matrix in matrices] == [table.num_rows for table in metadata]
        np.testing.assert_array_equal(np.concatenate(matrices), [stored[kind, key] for key in keys])
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written
    other = tmp_path / "other" / "metadata"
    other.mkdir(parents=True)
    (other / "metadata_00009.parquet").touch()
    refused = CliRunner().invoke(app, [*command[:2], str(other.parent), *command[3:]]).exception
    assert isinstance(refused, InputError)
    assert "metadata_00009.parquet, which is not part of them" in str(refused)


class _Killed(LocalStore):
    """A folder in which the file of a name cannot be written."""

    killed_at = ""

    def create(self, name: str, guard: Guard | None = None) -> AbstractContextManager[NewFile]:
        if name == self.killed_at:
            raise KeyboardInterrupt
        return super().create(name, guard)


@pytest.mark.parametrize("name", ["text_emb/text_emb_00001.npy", "_export/00000_stats.json", "_stats.json"])
def test_a_killed_export_is_not_complete_and_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(embeddings, "_ROWS_PER_FILE", 1)
    target, undisturbed = _Killed(tmp_path / "killed"), LocalStore(tmp_path / "undisturbed")
    target.killed_at = name
    with pytest.raises(KeyboardInterrupt):
        embeddings.export_embeddings(world.published, world.store, target)
    assert not target.exists("_stats.json")
    done = {name: target.read_with_etag(name) for name in target.list("")}
    target.killed_at = ""
    stats = embeddings.export_embeddings(world.published, world.store, target)
    assert stats == embeddings.export_embeddings(world.published, world.store, undisturbed)
    assert {name: target.read(name) for name in target.list("")} == {
        name: undisturbed.read(name) for name in undisturbed.list("")
    }
    assert {output.name for output in stats.outputs} == {
        name for name in target.list("") if name.endswith((".npy", ".parquet"))
    }
    if name != "_export/00000_stats.json":
        assert all(target.read_with_etag(name) == found for name, found in done.items() if "00000" in name)
