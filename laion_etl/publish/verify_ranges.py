"""Checks a version in parts, side by side: each checks the files of some ranges of batches, then a merge.

A part of the check reads its files whole and says how many rows of each subset it found, and of which
batches. Ranges hold different batches, so the merge finds a SAMPLE_ID that is in two of them by its batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from laion_etl.core.errors import InputError
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.dataset.coverage import number_ranges
from laion_etl.dataset.file_ranges import file_ranges, share
from laion_etl.dataset.manifest import NAME, read_manifest
from laion_etl.dataset.versions import Release, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.verify import Check, Problem, Progress, VerifyReport, problems_of_the_manifest


@dataclass(slots=True)
class RangeReport:
    """What one of `total` parts of the check found; `manifest` is the SHA-256 of the version's.

    `counts`: crawl, subset, rows found, and rows that belong there by its rule, None if that is not counted.
    """

    number: int
    total: int
    manifest: str
    report: VerifyReport
    counts: list[tuple[str, str, int, int | None]]
    batches: list[tuple[int, int]]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        own = {"range": f"{self.number}/{self.total}", "manifest": self.manifest}
        return {**self.report.to_plain(), **own, "counts": self.counts, "batches": self.batches}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "RangeReport":
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        number, total = map(int, str(plain["range"]).split("/"))
        problems = [Problem(**one) for one in plain["problems"]]
        files, rows, size = (int(plain[name]) for name in ("files", "rows", "bytes"))
        report = VerifyReport(str(plain["dataset"]), str(plain["version"]), files, rows, size, problems)
        counts = [(str(crawl), str(subset), int(rows), fit) for crawl, subset, rows, fit in plain["counts"]]
        batches = [(int(first), int(last)) for first, last in plain["batches"]]
        return cls(number, total, str(plain["manifest"]), report, counts, batches)


def verify_range(
    dataset: str, version: str, number: int, total: int, store: Store, on_bytes: Progress | None = None
) -> RangeReport:
    """Check part `number` of `total`, counted from 1, of a visible version; raises like `verify_version`.

    The first part also checks cards, report, and which files there are.
    """
    listed = read_versions(dataset, store).find(version)
    report = VerifyReport(dataset, listed.version)
    done = RangeReport(number, total, listed.manifest.sha256, report, [], [])
    with problems_of_the_manifest(report):
        manifest = read_manifest(dataset, listed, store)
        chosen = [file for one in share(file_ranges(manifest), number, total) for file in one.files]
        if number == 1:
            chosen += [file for file in manifest.files if not file.crawl]
        check = Check(manifest, report, store, on_bytes, chosen, first=number == 1)
        check.run()
        places = sorted(check.row_counts.keys() | check.fitting.keys())
        done.counts = [(*place, check.row_counts[place], check.fitting.get(place)) for place in places]
        done.batches = number_ranges(check.batches)
    return done


def merge_reports(found: Sequence[RangeReport], store: Store) -> VerifyReport:
    """Return the report of a version that was checked in parts.

    Raises InputError unless these are all parts of one check.
    """
    if not found or sorted(one.number for one in found) != list(range(1, found[0].total + 1)):
        numbers = ", ".join(f"{one.number}/{one.total}" for one in found) or "none"
        raise InputError(
            f"cannot merge the parts of a check: found {numbers}; run "
            "`laion-etl dataset verify --range I/N` for each I from 1 to N"
        )
    first = found[0]
    if len({(one.total, one.manifest, one.report.dataset, one.report.version) for one in found}) > 1:
        raise InputError(
            "cannot merge the parts of a check: they are of several versions or divisions; run "
            "`laion-etl dataset verify --range I/N` for all again"
        )
    report = VerifyReport(first.report.dataset, first.report.version)
    for one in found:
        report.files += one.report.files
        report.rows += one.report.rows
        report.bytes += one.report.bytes
        report.problems += one.report.problems
    _find_repeated(found, report)
    with problems_of_the_manifest(report):
        listed = read_versions(report.dataset, store).find(report.version)
        check = Check(read_manifest(report.dataset, listed, store), report, store, None, ())
        for crawl, subset, rows, fitting in (count for one in found for count in one.counts):
            check.row_counts[crawl, subset] += rows
            if fitting is not None:
                check.fitting[crawl, subset] += fitting
        check.check_counts()
    return report


def read_reports(folder: Store) -> list[RangeReport]:
    """Read the results of all parts, JSON files, from a folder. Raises InputError if one is not a result."""
    found = []
    for name in folder.list(""):
        if not name.endswith(".json"):
            continue
        try:
            found.append(RangeReport.from_plain(parse_json(folder.read(name))))
        except NOT_AS_EXPECTED as error:
            raise InputError(
                f"cannot read {folder.uri(name)}: it is not the result of `laion-etl dataset verify --range` "
                f"({error!r}); keep these in a folder of their own"
            ) from error
    return found


def _find_repeated(found: Sequence[RangeReport], report: VerifyReport) -> None:
    ranges = sorted(one for part in found for one in part.batches)
    for before, after in pairwise(ranges):
        if after[0] <= before[1]:
            name = Release(report.dataset, report.version).file(NAME)
            report.problems.append(Problem(name, f"batch {after[0]} is in the files of several ranges"))
