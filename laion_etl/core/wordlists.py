"""Word lists that ship with the parser, one entry per line in `data/`."""

from importlib import resources


def words(name: str) -> tuple[str, ...]:
    """Returns the entries of `data/<name>.txt` in order, without blank lines and those that begin with #."""
    lines = resources.files("laion_etl.core").joinpath(f"data/{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in lines.splitlines() if line and not line.startswith("#"))
