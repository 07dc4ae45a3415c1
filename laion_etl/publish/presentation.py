"""The files that present a version: the dataset card, the Croissant metadata and the report."""

from collections.abc import Iterator, Sequence

from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.versions import dataset_folder
from laion_etl.io.storage import Store
from laion_etl.publish.card import render_card
from laion_etl.publish.card_text import LICENCE, LICENSE_NAME
from laion_etl.publish.croissant import croissant
from laion_etl.report.figures import figures
from laion_etl.report.page import report_page
from laion_etl.report.png import png
from laion_etl.report.publish_context import PublishContext
from laion_etl.report.tables import bar_charts

CARD = "README.md"
DATASET_CARD = "dataset-card.md"
CROISSANT = "croissant.json"
DATASET_CROISSANT = "dataset-croissant.json"
LICENSE = "LICENSE.md"
# Files at the root of a dataset, and those of its current version that they are copies of.
OF_THE_DATASET = {CARD: DATASET_CARD, CROISSANT: DATASET_CROISSANT, LICENSE: LICENSE}
REPORT = "report/index.html"


def presentation(
    context: PublishContext, files: Sequence[DataFile], earlier: Sequence[DataFile], store: Store
) -> Iterator[tuple[str, bytes]]:
    """Yield name within the version and content of every file that presents it.

    `files` are its data files, `earlier` the dataset's data files of other crawls.
    """
    folder, root, everything = (
        context.release.folder,
        dataset_folder(context.release.name),
        [*earlier, *files],
    )
    yield CARD, render_card(context, files, folder)
    yield DATASET_CARD, render_card(context, everything, root)
    yield CROISSANT, croissant(context, files, folder)
    yield DATASET_CROISSANT, croissant(context, everything, root)
    yield LICENSE, f"# {LICENSE_NAME}\n\n{LICENCE}\n".encode()
    yield from report_files(context, store)


def report_files(context: PublishContext, store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield name within the version and content of the files of the report."""
    yield REPORT, report_page(context, store)
    for name, drawing in (figures(context) | bar_charts(context)).items():
        yield f"report/png/{name}.png", png(drawing)
