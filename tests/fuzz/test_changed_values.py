"""Each value of each document in the seeds, changed: a fuzzer of bytes rarely gets so far into JSON."""

import copy
import json
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.store_targets import documents, lists

_SEEDS = Path(__file__).parent / "seeds"
_ODD: tuple[object, ...] = (None, "x", [None], inf, 10**30)
_FILES = [path for path in sorted(_SEEDS.glob("documents/*")) if path.read_bytes()[-1:] in b"}]\n"]
_OF_USERS = [_SEEDS / "lists" / name for name in ("crawls", "collinfo")]

Place = tuple[str | int, ...]


@pytest.mark.parametrize("path", [*_FILES, *_OF_USERS], ids=lambda path: path.name)
def test_a_document_with_any_value_changed_or_left_out_is_read_or_refused(path: Path) -> None:
    reader, _, content = path.read_bytes().partition(b"\n")
    target = documents if path.parent.name == "documents" else lists
    for changed in _changed(json.loads(content)):
        target(reader + b"\n" + json.dumps(changed).encode())


def _changed(document: Any) -> Iterator[Any]:
    yield from _ODD
    for *parents, last in _places(document):
        for odd in (*_ODD, _LEFT_OUT):
            whole = inner = copy.deepcopy(document)
            for step in parents:
                inner = inner[step]
            inner[last] = odd
            if odd is _LEFT_OUT:
                del inner[last]
            yield whole


_LEFT_OUT = object()


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    steps = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for step in steps:
        yield (*place, step)
        yield from _places(value[step], (*place, step))
