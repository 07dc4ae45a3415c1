"""The groups of tests that run side by side are all tests, each once."""

from pathlib import Path

from tests.side_by_side import GROUPS, left_out

ROOT = Path(__file__).parents[1]


def test_every_test_is_in_one_group() -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 100
    for file in files:
        groups = [
            name
            for name, paths in GROUPS.items()
            if any(file.is_relative_to(path) for path in paths)
            and not any(file.is_relative_to(path) for path in left_out(name))
        ]
        assert len(groups) == 1, file


def test_every_path_of_a_group_is_there() -> None:
    for name, paths in GROUPS.items():
        assert all((ROOT / path).exists() for path in (*paths, *left_out(name)))
