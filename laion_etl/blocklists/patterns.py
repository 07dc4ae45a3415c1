"""Matches regular expressions against columns of URLs (RE2 through Arrow: linear in the length of a URL)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists.syntax import TextReader
from laion_etl.io.remote_files import open_input

_TOGETHER = 64


class UrlPatterns:
    """Expressions that are searched for together, 64 at a time."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        # \Q quotes up to \E or the end, so an expression with it must not be joined with others.
        quoting = [pattern for pattern in patterns if r"\Q" in pattern]
        plain = [pattern for pattern in patterns if r"\Q" not in pattern]
        groups = [plain[first : first + _TOGETHER] for first in range(0, len(plain), _TOGETHER)]
        self._alternatives = quoting + [joined for group in groups for joined in _joined(group)]

    def __bool__(self) -> bool:
        return bool(self._alternatives)

    def matches(self, urls: pa.StringArray) -> npt.NDArray[np.bool_]:
        """Whether any expression matches somewhere in a URL, per URL."""
        found = np.zeros(len(urls), np.bool_)
        for alternative in self._alternatives:
            found |= pc.match_substring_regex(urls, alternative).to_numpy(zero_copy_only=False)
        return found


def read_patterns(source: str) -> tuple[list[str], str]:
    """Returns the expressions of a source and the SHA-256 of its text; InputError for an invalid one."""
    patterns: list[str] = []
    with open_input(source) as stream:
        reader = TextReader(stream, source)
        for lines in reader.blocks():
            for row in range(lines.numbers.size):
                if not _is_valid(lines.entry(row)):
                    raise lines.error(row, "a regular expression of RE2")
                patterns.append(lines.entry(row))
    return patterns, reader.content


def _is_valid(pattern: str) -> bool:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid:
        return False
    return True


def _joined(patterns: Sequence[str]) -> list[str]:
    """Joins valid expressions; splits them in halves where one would be too large, or group names collide."""
    if len(patterns) == 1:
        return list(patterns)
    alternative = "|".join(f"(?:{pattern})" for pattern in patterns)
    if _is_valid(alternative):
        return [alternative]
    middle = len(patterns) // 2
    return _joined(patterns[:middle]) + _joined(patterns[middle:])
