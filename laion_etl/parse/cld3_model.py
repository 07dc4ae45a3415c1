"""CLD3's weights and its table of characters, for the compiled loops in kernels/languages.py.

`cld3.npz` holds what cld3-py 3.1.0 has compiled in: embeddings in 8 bits with a scale for each row, two
layers of floats, names of languages, and for each character its script and its lowercase form.
scripts/cld3_model.py makes it, with a check of each character against the library.
Copyright 2016 Google Inc., Apache License 2.0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from laion_etl.core.kernels import Bytes, Ints
from laion_etl.parse.kernels.languages import NOT_DECIDED, Network, find_languages, space
from laion_etl.parse.kernels.layers import Floats
from laion_etl.parse.kernels.words import Points

_FILE = Path(__file__).with_name("cld3.npz")
_BIAS = 128  # of weights in 8 bits


class Found(NamedTuple):
    """Row i is text i: number of the language, or NOT_DECIDED or TOO_SHORT; and the probability."""

    languages: Ints
    probabilities: Floats

    @property
    def undecided(self) -> list[int]:
        """The rows of texts that are left to the library."""
        return [int(row) for row in np.flatnonzero(self.languages == NOT_DECIDED)]


class Cld3Network:
    """Finds the languages of many texts; one thread at a time."""

    def __init__(self, min_bytes: int, max_bytes: int) -> None:
        """Read the file; texts whose words have fewer bytes are TOO_SHORT, those with more NOT_DECIDED."""
        with np.load(_FILE) as file:
            arrays = {name: file[name] for name in file.files}
        self.names: list[str] = arrays["languages"].tobytes().decode().split()
        self._limits = min_bytes, max_bytes
        self._script_of: Bytes = arrays["script_of"]
        self._lower: Points = (np.arange(self._script_of.size) + arrays["lower_by"]).astype(np.uint32)
        self._network = Network(
            bigrams=_embeddings(arrays, "bigrams"),
            quadgrams=_embeddings(arrays, "quadgrams"),
            relevant_scripts=_embeddings(arrays, "scripts"),
            scripts=_embeddings(arrays, "script"),
            trigrams=_embeddings(arrays, "trigrams"),
            unigrams=_embeddings(arrays, "unigrams"),
            hidden=arrays["hidden"],
            hidden_bias=arrays["hidden_bias"],
            softmax=arrays["softmax"],
            softmax_bias=arrays["softmax_bias"],
        )
        features, hidden = arrays["hidden"].shape
        self._space = space(len(self.names), hidden, features)

    def find(self, texts: Sequence[str]) -> Found:
        """Return the languages of texts. Raises UnicodeEncodeError for a lone surrogate."""
        column = pa.array(texts, pa.large_string())
        found = Found(np.empty(len(texts), np.int32), np.empty(len(texts), np.float32))
        if texts:
            _, offsets, data = column.buffers()
            find_languages(
                np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8),
                np.frombuffer(offsets, np.int64)[: len(texts) + 1],
                self._limits,
                self._script_of,
                self._lower,
                self._network,
                self._space,
                *found,
            )
        return found


def _embeddings(arrays: dict[str, npt.NDArray[np.generic]], name: str) -> Floats:
    """Return the rows as floats: weights less 128 times the row's scale, the upper half of a float."""
    scales = (arrays[f"{name}_scale"].astype(np.uint32) << 16).view(np.float32)
    return (arrays[name].astype(np.float32) - _BIAS) * scales[:, None]
