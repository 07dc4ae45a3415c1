"""Embeddings of a published dataset for others' tools: row i of every file belongs to row i of the others."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.schemas import scored_stem
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
    again = CliRunner().invoke(app, command).exception
    assert isinstance(again, InputError)
    assert "empty the folder, or name another" in str(again)
