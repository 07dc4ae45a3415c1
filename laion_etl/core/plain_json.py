"""JSON from files and programs that may be spoiled."""

import json
from collections.abc import Callable
from typing import Any

# What looking into a document raises where it is not as expected; OverflowError is that of int() for Infinity
# or 1e999, which Python's JSON may have.
NOT_AS_EXPECTED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)


def parse_json(
    data: bytes | str,
    on_object: Callable[[dict[str, Any]], object] | None = None,
    *,
    on_pairs: Callable[[list[tuple[str, Any]]], object] | None = None,
    strict: bool = True,
) -> Any:
    """Parse a document. Raises ValueError for what is not JSON, or is nested too deeply for Python.

    What `on_object` returns takes the place of each object, the inner ones first; so does that of `on_pairs`,
    which gets keys that occur several times. Not `strict`: texts may have line ends and control characters.
    """
    try:
        return json.loads(data, object_hook=on_object, object_pairs_hook=on_pairs, strict=strict)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
