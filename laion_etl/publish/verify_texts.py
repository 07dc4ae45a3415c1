"""Compares the cards and the report of a version with its manifest, and finds files that do not belong there.

The digests of the manifest find a file that has changed. These checks find one that was wrong from the start,
or was made anew together with its digest. The words of cards change from version to version of laion-etl, so
only those of the same version are read.
"""

import re
from collections.abc import Callable, Iterator

from laion_etl.blocklists.removal_requests import REASON
from laion_etl.core.quantities import quantity
from laion_etl.dataset.manifest import Manifest, ManifestPart
from laion_etl.dataset.versions import NAME as VERSIONS
from laion_etl.dataset.versions import dataset_folder, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.card_text import LICENSE_NAME
from laion_etl.publish.commit import root_files
from laion_etl.publish.presentation import CARD, DATASET_CARD, REPORT
from laion_etl.report.publish_context import PIPELINE

_CONFIG = re.compile(r'^- config_name: "(.*)"$', re.MULTILINE)
_OF_THE_HUB = ".gitattributes"  # of a clone of a repository there
_HONOURED = "Owners' opt-outs were honoured"
_LICENCE = f"license: other\nlicense_name: {LICENSE_NAME}\n"

OnProblem = Callable[[str, str], None]


def check_root(manifest: Manifest, store: Store, on_problem: OnProblem) -> None:
    """Check the files in the folder of the whole dataset, if the version is the current one."""
    release = manifest.release
    folder = dataset_folder(release.name)
    current = read_versions(release.name, store).current
    if current is None or current.version != release.version:
        return
    wanted = root_files(release, store)
    for name, data in wanted.items():
        if not store.exists(name) or store.read(name) != data:
            on_problem(name, "is not the one of the current version; publish again to fix it")
    for file in store.files(folder):
        if file.name not in {*wanted, f"{folder}/{VERSIONS}", f"{folder}/{_OF_THE_HUB}"}:
            on_problem(file.name, "is of no version, and publishing has not written it")


def check_texts(manifest: Manifest, store: Store, on_problem: OnProblem) -> None:
    """Compare cards and report with the manifest, if this version of laion-etl has written them."""
    release = manifest.release
    own = next((part for part in manifest.parts if part.version == release.version), None)
    if own is None or manifest.document.get("pipeline") != PIPELINE:
        return
    for name in (CARD, DATASET_CARD):
        file = release.file(name)
        if store.exists(file):
            text = store.read(file).decode(errors="replace")
            files = [one for one in manifest.files if name == DATASET_CARD or one.crawl == own.crawl]
            configs = {one.subset for one in files if one.subset}
            for what in _wrong_in_card(text, int(manifest.document["rows"]), configs, own):
                on_problem(file, what)
    file = release.file(REPORT)
    if store.exists(file) and f"{own.rows:,}" not in store.read(file).decode(errors="replace"):
        on_problem(file, f"does not say {quantity(own.rows, 'row')} as the manifest does")


def _wrong_in_card(text: str, rows: int, configs: set[str], part: ManifestPart) -> Iterator[str]:
    if f"\n{quantity(rows, 'image link')} with " not in text:
        yield f"does not say {quantity(rows, 'image link')} as the manifest does"
    if _LICENCE not in text:
        yield f"does not state the licence {LICENSE_NAME}"
    if (named := {*_CONFIG.findall(text)}) != configs:
        yield f"names other subsets than have files: {', '.join(sorted(named ^ configs))}"
    removed = part.removed + part.dropped.get(REASON, 0)
    if part.removals and f"which left {removed:,} row" not in text:
        yield f"does not say that removals left out {quantity(removed, 'row')} as the manifest does"
    if not part.removals and "This version went through" in text:
        yield "names removal requests, the manifest has none"
    if (_HONOURED in text) != (part.settings.get("download", {}).get("opt_out") is True):
        yield "says otherwise than the manifest whether opt-outs were honoured"
    least = part.settings.get("parse", {}).get("min_alt_chars")
    if isinstance(least, int) and f"Texts under {least} characters" not in text:
        yield f"does not say that texts have {least} characters at least as the manifest does"
