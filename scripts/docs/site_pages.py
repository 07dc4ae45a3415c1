"""A hook of mkdocs: what the documentation links to outside of docs/.

mkdocs knows only the pages below docs/. Those in OUTSIDE become pages of the site as well; links to other
files of the repository (code, examples) become their text, because the site does not have them. So every link
that is left has to lead to a page, and `mkdocs build --strict` holds that.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[2]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_others: Any) -> str:
    """Let links lead to where the site has a page."""
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, name: str) -> str:
    """Return a page of the site with its links to files outside of docs/ changed."""
    folder = dirname(name if name in OUTSIDE else join("docs", name))

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = normpath(join(folder, target))
        if path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif path not in OUTSIDE:
            return text
        return f"[{text}]({relpath(path, dirname(name) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
