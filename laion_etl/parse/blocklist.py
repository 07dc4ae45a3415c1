"""Blocklists of domains, URLs and pairs (interface; see issue 3)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from laion_etl.settings import ParseSettings

Mask = npt.NDArray[np.bool_]


class Blocklists:
    identity = ""
    blocks_urls = False
    blocks_pairs = False

    def domain_blocked(self, host: str) -> bool:
        return False

    def urls_blocked(self, urls: pa.StringArray) -> Mask:
        return np.zeros(len(urls), np.bool_)

    def pairs_blocked(self, pair_ids: npt.NDArray[np.uint64]) -> Mask:
        return np.zeros(pair_ids.size, np.bool_)


def load_blocklists(settings: ParseSettings, data_dir: Path) -> Blocklists:
    return Blocklists()
