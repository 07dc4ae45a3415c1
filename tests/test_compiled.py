import tempfile
from pathlib import Path

import numba
import pytest

from laion_etl.core import numba_cache
from laion_etl.score import kernels
from tests.kernel_sources import sources_of_kernels


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


def test_where_the_package_is_installed_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a new environment need not compile what another one has."""
    folder = numba_cache.compiled_marker().parent
    # As numba does when it compiles and a variable of the environment has changed.
    monkeypatch.setitem(vars(numba.config), "CACHE_LOCATOR_CLASSES", "")

    def made_later() -> int:
        return 1

    made_later.__code__ = made_later.__code__.replace(co_filename=kernels.__file__)
    found = {
        Path(numba_cache.kernel(function).dispatcher._cache.cache_path)  # type: ignore[attr-defined]
        for function in (made_later, kernels.add_products._function)  # type: ignore[attr-defined]
    }
    assert found == {folder / "score"}


def test_kernels_are_compiled_again_when_a_file_changes_that_they_follow_from() -> None:
    """And only then: compiling all takes twenty seconds."""
    listed = {path for path in numba_cache._sources() if path.name != "__init__.py"}
    assert listed == sources_of_kernels()
