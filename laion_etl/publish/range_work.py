"""A range of batches that is to be published, and what it is made from."""

from dataclasses import dataclass, replace

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.io.storage import Store
from laion_etl.publish.compared_ranges import NO_DIGESTS, Digests, digests_of
from laion_etl.publish.prepare import inputs_of
from laion_etl.publish.prepared import BatchRange, Prepared, again
from laion_etl.publish.range_images import record_name
from laion_etl.settings import Settings

_READERS = 8


@dataclass(frozen=True, slots=True)
class RangeWork:
    """A range of a crawl for one dataset, and what it is made from.

    `digests`: the files about the images of all ranges, if duplicates are looked for.
    """

    prepared: Prepared
    one: BatchRange
    scored: ScoredCrawl
    digests: Digests = NO_DIGESTS

    @property
    def inputs(self) -> str:
        """The fingerprint of what the range is made from."""
        return inputs_of(self.prepared, self.one, self.scored, self.digests)

    @property
    def made_from(self) -> str:
        """The fingerprint of the record of the range: its inputs, and the version it belongs to."""
        return fingerprint(self.inputs, self.prepared.version)

    def with_digests(self, settings: Settings, store: Store) -> "RangeWork":
        """Return the range with the digests of all. Raises InputError if some are missing or outdated."""
        found = digests_of(self.prepared, settings.publish, store)
        record = record_name(self.prepared, self.one)
        if found.images and store.read_stats(record).fingerprint != self.inputs:
            raise InputError(
                f"cannot publish range {self.one.number} of {self.prepared.crawl}: its batches have changed "
                f"since its images were looked at; {again(self.prepared.crawl)}"
            )
        return replace(self, digests=found)
