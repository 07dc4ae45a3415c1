"""Reduces a failure's reason to its cause, by which alerts and dashboard group failures."""

import re

# Parts that differ from unit to unit: UUIDs, digests, numbers and what joins them (1,234; 10.0.0.8:5432).
# Possessive, and tried only at the start of a run of hex digits: linear time for any text.
_UUID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_DIGEST = r"\b[0-9a-f]{16,}\b"
_NUMBER = r"(?<![0-9a-f])[a-f]*+\d[0-9a-f]*+"
_VARIES = re.compile(rf"{_UUID}|{_DIGEST}|{_NUMBER}(?:[.,:-]{_NUMBER})*+")


def cause_of(reason: str) -> str:
    """Returns a reason without numbers, digests and case: equal for failures of the same cause."""
    return " ".join(_VARIES.sub("#", reason.lower()).split())
