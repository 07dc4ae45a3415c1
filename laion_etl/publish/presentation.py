"""The files that present a version: the dataset card, the Croissant metadata and the report."""

from collections.abc import Iterator, Sequence

from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.versions import dataset_folder
from laion_etl.io.storage import Store
from laion_etl.publish.card import render_card
from laion_etl.publish.croissant import croissant
from laion_etl.report.figures import figures
from laion_etl.report.page import report_page
from laion_etl.report.png import png
from laion_etl.report.publish_context import PublishContext
from laion_etl.report.tables import bar_charts

CARD = "README.md"
DATASET_CARD = "dataset-card.md"  # becomes README.md of the whole dataset
CROISSANT = "croissant.json"
REPORT = "report/index.html"


def presentation(
    context: PublishContext, files: Sequence[DataFile], earlier: Sequence[DataFile], store: Store
) -> Iterator[tuple[str, bytes]]:
    """Yield name within the version and content of every file that presents it.

    `files` are its data files, `earlier` the dataset's data files of other crawls.
    """
    release = context.release
    yield CARD, render_card(context, files, release.folder)
    yield DATASET_CARD, render_card(context, [*earlier, *files], dataset_folder(release.name))
    yield CROISSANT, croissant(context, files)
    yield from report_files(context, store)


def report_files(context: PublishContext, store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield name within the version and content of the files of the report."""
    yield REPORT, report_page(context, store)
    for name, drawing in (figures(context) | bar_charts(context)).items():
        yield f"report/png/{name}.png", png(drawing)
