"""The quality of PDQ hashes, 0 to 100: images with little to see have hashes that say nothing about them."""

MIN_QUALITY = 50  # the limit of the reference: what is below should be discarded


def is_compared(quality: int | None) -> bool:
    """Return whether images are recognised by a hash of this quality; None: it is not known."""
    return quality is None or quality >= MIN_QUALITY
