import tempfile
from pathlib import Path

import pytest

from laion_etl.core import numba_cache
from laion_etl.score import kernels


def test_kernels_of_a_read_only_image_are_used_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    of_image = numba_cache._cache_folder()
    (of_image / "compiled").touch()
    (of_image / "kernel.nbi").write_text("compiled")

    def read_only(**_: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copy = numba_cache._cache_folder()
    assert copy != of_image
    assert copy.name == of_image.name  # by this name a process started from here finds it
    assert (copy / "kernel.nbi").read_text() == "compiled"
    assert (copy / "compiled").exists()


def test_where_the_package_is_installed_does_not_matter() -> None:
    """So that a new environment need not compile what another one has."""
    found = {
        Path(kernel.dispatcher._cache.cache_path)
        for kernel in (kernels.add_products, kernels.add_row_products)
    }  # type: ignore[attr-defined]
    assert found == {numba_cache.compiled_marker().parent / "score"}
