"""Takes a range over from the version before, where a removal has changed nothing in it.

Most requests name something in a few batches, and the rows of all others stay as they are. A range whose
scored batches are those that the version before was made from is not read: its files are copied, in a bucket
without passing through here, and its record gets their new names. Refused: listing the files of the version
before in the manifest, as those of other crawls are; cards name folders, and the folder of the version before
still has the files of the ranges that have changed.
"""

import logging
from dataclasses import replace

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset.versions import Release
from laion_etl.io.storage import Guard, Store
from laion_etl.publish.join import has_restored
from laion_etl.publish.prepare import inputs_of
from laion_etl.publish.range_counts import counted_stages
from laion_etl.publish.range_work import RangeWork

_log = logging.getLogger(__name__)


def former_record(work: RangeWork, store: Store) -> StageStats | None:
    """Return the record of a range of the version before, if it was made from the same scored batches."""
    former = work.prepared.former
    if former is None or work.one.number in former.changed:
        return None
    try:
        record = store.read_stats(work.prepared.range_name(work.one.number))
        inputs = inputs_of(replace(work.prepared, rules=former.rules), work.one, work.scored)
        same = record.fingerprint == fingerprint(inputs, former.version)
        if not same or record.details["rules"] != former.rules:
            return None
        if has_restored(record, work.scored, store):
            return None
    except (MissingFileError, DamagedFileError, KeyError):
        return None
    folder = f"{Release(work.prepared.dataset, former.version).folder}/"
    return record if all(output.name.startswith(folder) for output in record.outputs) else None


def taken_over(former: StageStats, work: RangeWork, guard: Guard, store: Store) -> StageStats | None:
    """Copy the files of a former record; return the record that publishing the range would have made.

    None if a file of the former version is gone or damaged. The stages before publish are counted again:
    a removal may have changed shards whose samples were not kept.
    """
    try:
        outputs = tuple(_copied(output, work, guard, store) for output in former.outputs)
    except (MissingFileError, DamagedFileError) as error:
        _log.warning("range %s of %s is read again: %s", former.unit, former.crawl, error)
        return None
    counted = counted_stages(work.scored, store)
    details = {
        **former.details,
        "rules": work.prepared.rules,
        "inputs": [work.inputs],
        "coverage": work.scored.coverage.to_plain(),
        "funnel": {stage: one.to_plain() for stage, one in counted.items()},
    }
    return replace(former, fingerprint=work.made_from, outputs=outputs, details=details)


def _copied(output: Output, work: RangeWork, guard: Guard, store: Store) -> Output:
    """Copy a file into the folder of the new version, below which it has the same name."""
    name = "/".join([work.prepared.release.folder, *output.name.split("/")[3:]])  # dataset/<name>/<version>/
    store.copy(output, name, guard)
    return replace(output, name=name)
