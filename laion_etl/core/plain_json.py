"""JSON from files and programs that may be spoiled."""

import json
from collections.abc import Callable
from typing import Any


def parse_json(data: bytes | str, on_object: Callable[[dict[str, Any]], object] | None = None) -> Any:
    """Parse a document. Raises ValueError for what is not JSON, or is nested too deeply for Python.

    What `on_object` returns takes the place of each object, the inner ones first.
    """
    try:
        return json.loads(data, object_hook=on_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
