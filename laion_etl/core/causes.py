"""What failures have in common: alerts and the dashboard group by the same cause."""

import re

# What differs from unit to unit: UUIDs, digests, and numbers with what joins them (1,234; 10.0.0.8:5432).
# Possessive, and begun only where a run of hex digits begins: linear in time whatever the text.
_UUID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_DIGEST = r"\b[0-9a-f]{16,}\b"
_NUMBER = r"(?<![0-9a-f])[a-f]*+\d[0-9a-f]*+"
_VARIES = re.compile(rf"{_UUID}|{_DIGEST}|{_NUMBER}(?:[.,:-]{_NUMBER})*+")


def cause_of(reason: str) -> str:
    """The reason of a failure without numbers, digests and case: equal for failures of the same cause."""
    return " ".join(_VARIES.sub("#", reason.lower()).split())
