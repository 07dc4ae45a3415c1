"""The download stage: a batch of up to 10,000 links becomes one shard.

The problem: fetch links of strangers, half of them dead and some hostile, politely and within 1 GB of
memory. The choice: one trio event loop per batch (`batch_downloader.py`) that starts the links which
`link_scheduler.py` and `politeness.py` allow, and our own client on checked addresses (`client.py`,
`http1.py`, `resolver.py`, `ssrf.py`): every hop is checked, every step is limited in time and bytes
(`deadlines.py`, `memory_budget.py`). Images are decoded in confined processes (`decoders.py`) and written in
key order (`shards.py`). Refused: asks and h11, which need 5.8 and 1.5 times the CPU time per request;
trio.open_tcp_stream and httpcore, which resolve names themselves, so that the address checked need not be
the one connected to; decoding in the worker's own process, where one decompression bomb ends the batch.
The figure: 8.3 times the links/s of img2dataset where most links are dead, slow or endless (RESULTS.md).
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Raise it whenever the rules of this package accept other images than before, or store other bytes or values,
# with the same settings: then finished batches are downloaded again.
RULES_VERSION = 11

if TYPE_CHECKING:
    from laion_etl.api.shards import Shard


class _CallablePackage(ModuleType):
    """Makes `laion_etl.download(urls)` work.

    Importing any module of this package sets the attribute `download` of `laion_etl` to the package, so that
    a function of that name would be there or not depending on what was imported before. The package itself
    always is.
    """

    def __call__(self, *arguments: Any, **named: Any) -> "Shard":
        """Download images into a shard; the arguments are those of `laion_etl.api.shards.download`."""
        from laion_etl.api.shards import download

        return download(*arguments, **named)


sys.modules[__name__].__class__ = _CallablePackage
