"""JSON from files and programs that may be spoiled."""

import json
from typing import Any


def parse_json(data: bytes | str) -> Any:
    """Parse a document. Raises ValueError for what is not JSON, or is nested too deeply for Python."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
