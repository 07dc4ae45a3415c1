"""The command that puts an evaluation set into the store, for datasets that are kept apart from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import JsonOption, as_name, open_settings, say, say_json
from laion_etl.core.quantities import first_in_line

if TYPE_CHECKING:
    from laion_etl.dataset.evaluation_sets import EvaluationSet

_NAMED = 5  # files that are not images


def evaluation_set(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of images, or embeddings of images as .npy or .parquet."),
    ],
    name: Annotated[
        str, typer.Option(callback=as_name, help="Name of the set, for LAION_ETL_PUBLISH_EVALUATION_SETS.")
    ],
    model: Annotated[
        str, typer.Option(help="Of embeddings: the CLIP model that made them, as the dataset card names it.")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="Of embeddings: SHA-256 of the model's weights, its first 12 digits at least.")
    ] = "",
    column: Annotated[str, typer.Option(help="Of a .parquet file: the column of embeddings.")] = "embedding",
    as_json: JsonOption = False,
) -> None:
    """Put an evaluation set into the store: publishing then can leave out samples near its images."""
    from laion_etl.dataset.evaluation_sets import write_set

    settings, store = open_settings()
    others: list[str] = []
    if source.is_dir():
        from laion_etl.evaluate.evaluation_set import embed_folder
        from laion_etl.evaluate.image_files import files_of
        from laion_etl.score.model import load_model

        images, rest = files_of(source)
        others = [str(path.relative_to(source)) for path in rest]
        made = embed_folder(name, source, images, load_model(settings.clip), settings.clip.preparers)
    else:
        made = _read_embeddings(source, name, model, weights, column)
    found = write_set(made, store).to_plain()
    say(
        f"{name}: {found['images']:,} images, embedded by {found['model']}, weights "
        f"{found['weights_sha256'][:12]}, SHA-256 {found['sha256']}"
    )
    if others:
        shown = first_in_line(others, _NAMED)
        say(f"left out, for they are not images: {len(others):,} ({shown})")
    if as_json:
        say_json({**found, "other_files": len(others)})


def _read_embeddings(source: Path, name: str, model: str, weights: str, column: str) -> "EvaluationSet":
    from laion_etl.core.errors import InputError
    from laion_etl.dataset.evaluation_sets import EvaluationSet, read_embeddings

    if not model or len(weights) < 12:
        raise InputError(
            f"cannot use {source}: embeddings do not say which model made them; give --model and --weights"
        )
    return EvaluationSet(name, model, weights.lower(), read_embeddings(source, column))
