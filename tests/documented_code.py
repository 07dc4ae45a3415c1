"""The code blocks of pages, which tests run: so the page and the code cannot part."""

import re
from pathlib import Path
from textwrap import dedent

DOCS = Path(__file__).parents[1] / "docs"


def code_blocks(page: str | Path, heading: str, language: str) -> list[str]:
    """Return the blocks of a language below a heading, up to the next one of the same or a higher level.

    `page`: a page of the docs, or the path of another one.
    """
    text = (DOCS / page).read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found is not None, heading
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", re.sub(r"(?ms)^```.*?^```", _blanked, rest), re.MULTILINE)
    section = rest[: end.start()] if end else rest
    found_blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```", section, re.MULTILINE | re.DOTALL)
    assert found_blocks, f"no {language} below {heading}"
    return [dedent(block) for _, block in found_blocks]


def run_python(code: str) -> dict[str, object]:
    """Run a block; returns its names."""
    names: dict[str, object] = {}
    exec(compile(code, "docs", "exec"), names)  # noqa: S102 - as its reader does
    return names


def _blanked(block: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", block[0])
