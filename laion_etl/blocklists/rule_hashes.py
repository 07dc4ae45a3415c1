"""The kinds of rules of removal requests, and the hashes that they have."""

WIDTHS = {"domains": 8, "urls": 8, "pairs": 16, "md5": 16, "sha256": 32, "pdq": 32}  # bytes of a hash
RULES = tuple(WIDTHS)


def hash_of(digits: str, kind: str) -> bytes:
    """Return a hash of hexadecimal digits. Raises ValueError for what is not one of this kind."""
    found = bytes.fromhex(digits)
    if len(found) != WIDTHS[kind]:
        raise ValueError(f"{digits[:80]!r} is not a hash of {kind}")
    return found
