"""A 64-bit perceptual hash: the signs of the low frequencies of a small grey picture.

The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): 32 x 32
luma, two-dimensional DCT-II, the 8 x 8 lowest frequencies, each bit tells whether a coefficient is above
their median. Scaling and recompression change few bits (0 to 6), another picture about half of them.
"""

import numpy as np
from PIL import Image

_SIDE = 32
_LOW = 8


def _dct_matrix(size: int) -> np.ndarray:
    """Rows are the first `_LOW` cosine waves over `size` samples (DCT-II without normalisation)."""
    waves = np.arange(_LOW)[:, None]
    samples = np.arange(size)[None, :]
    return np.cos(np.pi * (2 * samples + 1) * waves / (2 * size))


_DCT = _dct_matrix(_SIDE)


def perceptual_hash(grey: Image.Image) -> str:
    """The hash of a decoded picture in mode L as 16 hexadecimal digits, highest bit the lowest frequency."""
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    low = np.rint(_DCT @ pixels @ _DCT.T).ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
