"""Commands that judge a model, its thresholds, or a published dataset."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from laion_etl.cli.common import CrawlOption, console, say, settings_and_store
from laion_etl.cli.extras import Commands, needs
from laion_etl.core.errors import InputError
from laion_etl.settings import load_settings

commands = typer.Typer(cls=Commands, help="Judge a CLIP model or a published dataset.", no_args_is_help=True)


@commands.command("zero-shot")
@needs("score")
def zero_shot(
    pictures: Annotated[
        list[Path],
        typer.Argument(help="A folder with a folder per class, or tars with image and .cls members."),
    ],
    templates: Annotated[str, typer.Option(help="Prompts: openai (80), simple (7) or photo (1).")] = "openai",
    class_names: Annotated[
        Path | None, typer.Option(help="File of class names, one a line; needed for tars.")
    ] = None,
) -> None:
    """Top-1 and top-5 accuracy of the model in the settings, as the papers measure it."""
    from laion_etl.evaluate import zero_shot as task
    from laion_etl.score.model import load_model

    names = _lines(class_names) if class_names else []
    prompts = task.templates(templates)
    if len(pictures) == 1 and pictures[0].is_dir():
        names, labelled = task.image_folder(pictures[0], names)
    elif names:
        labelled = task.web_dataset(pictures, names)
    else:
        raise InputError("tars have numbers for classes: name them with --class-names")
    found = task.classify(load_model(load_settings().clip), names, labelled, prompts)
    say(
        f"{found.pictures:,} pictures in {len(names):,} classes, {found.unreadable:,} unreadable",
        f"top-1 {found.top1:.4f}, top-5 {found.top5:.4f}",
    )


@commands.command()
@needs("score")
def retrieval(
    crawl: CrawlOption,
    shard: Annotated[int, typer.Option(min=0, help="Number of a downloaded shard.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="At most as many samples.")] = 10_000,
) -> None:
    """Recall at 1, 5 and 10 on a shard: captions find their pictures, pictures their captions."""
    from laion_etl.evaluate.retrieval import KS, shard_recall
    from laion_etl.score.model import load_model

    settings, store = settings_and_store()
    found = shard_recall(crawl, shard, load_model(settings.clip), store, samples)
    table = Table("recall", *(f"at {k}" for k in KS))
    for name, values in (
        ("picture of a text", found.image_of_text),
        ("text of a picture", found.text_of_image),
    ):
        table.add_row(name, *(f"{values[k]:.3f}" for k in KS))
    say(f"{found.pairs:,} pairs")
    console.print(table)


@commands.command()
def dataset(
    crawl: CrawlOption,
    name: Annotated[str, typer.Option(help="Name of the dataset; left out: LAION_ETL_PUBLISH_NAME.")] = "",
) -> None:
    """Similarity and beauty of a published dataset by language: median, lowest and highest twentieth."""
    from laion_etl.dataset.manifest import published_part
    from laion_etl.dataset.versions import Release
    from laion_etl.evaluate.quality import dataset_quality

    settings, store = settings_and_store()
    table = Table("language", "samples", "similarity", "aesthetic")
    named = name or settings.publish.name
    release = published_part(named, crawl, store) or Release(named, crawl)
    for row in dataset_quality(f"{release.folder}/", store):
        table.add_row(
            row.language or "none",
            f"{row.samples:,}",
            _spread(row.similarity, 3),
            _spread(row.aesthetic, 2) if row.aesthetic else "",
        )
    console.print(table)


@commands.command("train-check")
@needs("score")
def train_check(
    crawl: CrawlOption,
    model: Annotated[
        str, typer.Option(help="open_clip architecture, trained from random weights.")
    ] = "laion-etl-tiny",
    samples: Annotated[int, typer.Option(min=2, help="At most as many kept samples.")] = 256,
    batch_size: Annotated[int, typer.Option(min=2, help="Samples in a step.")] = 16,
) -> None:
    """A few steps of open_clip's own training on the kept samples: whether the shards can be trained on."""
    from laion_etl.evaluate.train_check import check_training

    _, store = settings_and_store()
    found = check_training(crawl, store, model=model, most_samples=samples, batch_size=batch_size)
    say(
        f"open_clip trained {model} for {len(found.losses)} steps of {found.batch_size} samples: "
        f"loss {found.losses[0]:.3f} to {found.losses[-1]:.3f}"
    )


def calibrate(
    crawl: CrawlOption,
    shard: Annotated[list[int] | None, typer.Option(help="Number of a scored shard; left out: all.")] = None,
    keep: Annotated[float, typer.Option(help="Share of the samples that thresholds should keep.")] = 0.5,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with columns key and label (1: text and image match).")
    ] = None,
) -> None:
    """Propose similarity thresholds from scored shards: by the share to keep, or by labels."""
    from laion_etl.evaluate import calibrate as task

    _, store = settings_and_store()
    similarities = task.read_similarities(crawl, shard or (), store)
    found = (
        task.propose_from_labels(similarities, task.read_labels(labels))
        if labels
        else task.propose(similarities, keep)
    )
    table = Table("route", "samples", *(f"{share:.0%}" for share in task.QUANTILES), "threshold", "kept")
    for one in found:
        quantiles = (f"{value:.3f}" for value in one.quantiles.values())
        table.add_row(one.route, f"{one.samples:,}", *quantiles, f"{one.threshold:.4f}", f"{one.kept:.1%}")
    console.print(table)
    for one in found:
        if one.precision is not None and one.recall is not None:
            say(
                f"{one.route}: precision {one.precision:.3f}, recall {one.recall:.3f} on the labelled samples"
            )
        say(f"export LAION_ETL_CLIP_THRESHOLD_{one.route.upper()}={one.threshold:.4f}")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the class names in {path}: {error}") from error


def _spread(values: tuple[float, float, float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"
