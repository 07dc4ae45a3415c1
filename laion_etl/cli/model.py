"""Commands about models: check and evaluate one, calibrate its thresholds, convert a head."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    as_name,
    console,
    say,
    say_json,
    settings_and_store,
)
from laion_etl.cli.extras import Commands, needs
from laion_etl.core.errors import InputError
from laion_etl.core.quantities import first_items, quantity

if TYPE_CHECKING:
    from laion_etl.io.storage import Store
    from laion_etl.score.model import ClipModel
    from laion_etl.score.reference import Comparison

_MAX_LISTED = 20

commands = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Check and evaluate CLIP models, choose their thresholds, and convert heads.",
)
evaluation = typer.Typer(cls=Commands, no_args_is_help=True, help="Measure the configured CLIP model.")
commands.add_typer(evaluation, name="eval")


@evaluation.command("zero-shot")
@needs("score")
def zero_shot(
    images: Annotated[
        list[Path],
        typer.Argument(help="Folder with one subfolder per class, or tars with images and .cls members."),
    ],
    templates: Annotated[
        str, typer.Option(help="Set of prompts: openai (80 of them), simple (7) or photo (1).")
    ] = "openai",
    class_names: Annotated[
        Path | None, typer.Option(help="File of class names, one per line; required for tars.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the top-1 and top-5 accuracy of zero-shot classification, as in the papers."""
    from laion_etl.evaluate import zero_shot as task
    from laion_etl.score.model import load_model
    from laion_etl.settings import load_settings

    names = _lines(class_names) if class_names else []
    prompts = task.templates(templates)
    if len(images) == 1 and images[0].is_dir():
        names, labelled = task.image_folder(images[0], names)
    elif names:
        labelled = task.web_dataset(images, names)
    else:
        raise InputError("cannot name the classes: tars have only class numbers; pass --class-names")
    mapping = task.class_mapping(images, names)
    say(*first_items(mapping, _MAX_LISTED))
    clip = load_settings().clip
    model = load_model(clip)
    found = task.classify(model, names, labelled, prompts, clip.preparers)
    say(
        f"{quantity(found.images, 'image')} in {quantity(len(names), 'class', 'classes')}, "
        f"{found.unreadable:,} unreadable",
        f"top-1 {found.top1:.4f}, top-5 {found.top5:.4f}",
        *(f"the model cannot tell {one!r} and {other!r} apart" for one, other in found.alike[:_MAX_LISTED]),
    )
    if as_json:
        say_json({"model": _described(model), "classes": mapping, **asdict(found)})


@evaluation.command()
@needs("score")
def retrieval(
    crawl: CrawlOption,
    shard: Annotated[
        int | None,
        typer.Option(min=0, help="Number of a downloaded shard; default: the first one of the plan."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Use at most this many samples.")] = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Measure recall at 1, 5 and 10 on a shard, from captions to images and from images to captions."""
    from rich.table import Table

    from laion_etl.evaluate.retrieval import KS, shard_recall
    from laion_etl.score.model import load_model

    settings, store = settings_and_store()
    shard = _first_shard(crawl, store) if shard is None else shard
    model = load_model(settings.clip)
    found = shard_recall(crawl, shard, model, store, settings.clip.preparers, samples)
    table = Table("recall", *(f"at {k}" for k in KS))
    for name, values in (
        ("image of a text", found.image_of_text),
        ("text of an image", found.text_of_image),
    ):
        table.add_row(name, *(f"{values[k]:.3f}" for k in KS))
    say(f"{quantity(found.pairs, 'pair')} of {quantity(found.images, 'image')}")
    console().print(table)
    if as_json:
        say_json({"model": _described(model), "crawl": crawl, "shard": shard, **asdict(found)})


@evaluation.command()
@needs("score")
def safety(
    labels: Annotated[
        Path,
        typer.Option(
            help="CSV file with the columns image (path, relative to it) and label (1: unsafe, 0: safe); "
            "it may also have caption and underage (1 or 0). With --crawl: the columns key and label."
        ),
    ],
    crawl: Annotated[
        str,
        typer.Option(
            callback=as_name,
            help="Use the scores that samples of this crawl have, instead of scoring images.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure the precision and recall of safety tags and punsafe on your own labels, and propose a limit.

    Images are scored with the configured model, prompts and heads; nothing is stored.
    """
    from rich.table import Table

    from laion_etl.evaluate import safety as task
    from laion_etl.score.head_registry import described_safety
    from laion_etl.score.scorer import load_scorer

    settings, store = settings_and_store()
    identity: dict[str, Any]
    if crawl:
        samples, lost = task.labelled_samples(labels, crawl, store)
        identity = {"crawl": crawl, **task.scored_by(crawl, store)}
    else:
        rows = task.image_labels(labels)
        scorer = load_scorer(settings)
        samples, lost = task.labelled_images(rows, scorer, settings.clip.preparers)
        identity = {**_described(scorer.model), "safety": described_safety(scorer.heads)}
    found = task.measure(samples, lost)
    table = Table("rule", "found", "right", "precision", "recall")
    for one in found.rules:
        table.add_row(one.rule, f"{one.found:,}", f"{one.right:,}", _share(one.precision), _share(one.recall))
    say(
        f"{quantity(found.samples, 'sample')}, {found.unsafe:,} labelled unsafe, {found.not_scored:,} "
        "without a score"
    )
    console().print(table)
    if found.best_limit is None:
        say("no limit is proposed: the labels are all of one kind; label safe and unsafe samples")
    else:
        say(f"the best limit of punsafe for these labels: {found.best_limit:.4g}")
    if as_json:
        say_json({**identity, **asdict(found)})


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _first_shard(crawl: str, store: "Store") -> int:
    from laion_etl.io.planned import planned_batches

    if not (planned := planned_batches(crawl, store)):
        raise InputError(f"cannot measure on a shard of {crawl}: it has none; choose a crawl with new pairs")
    return planned[0]


@commands.command()
@needs("score")
def check(as_json: JsonOption = False) -> None:
    """Load the configured CLIP model and show what its scores depend on.

    For known weights, embeddings of fixed images and captions are compared with recorded ones; the command
    fails if they differ. The model of LAION_ETL_CLIP_OTHER_MODEL is checked, too, if one is set.
    """
    from laion_etl.score.model import load_model
    from laion_etl.score.reference import compare
    from laion_etl.score.scorer import load_other_model
    from laion_etl.score.thresholds import thresholds, warn_of_other_thresholds
    from laion_etl.settings import load_settings

    settings = load_settings().clip
    model = load_model(settings)  # refuses weights and embeddings that are not finite
    limits = thresholds(settings)
    other = load_other_model(settings, model)
    warn_of_other_thresholds(model.name, limits, other.name if other else "")
    compared = [(one, compare(one)) for one in (model, other) if one]
    found = _described(model) | {"threshold_en": limits.english, "threshold_other": limits.other}
    say(*_shown(found, compared[0][1]))
    plain = found | {"reference": _plain(compared[0][1])}
    for one, reference in compared[1:]:
        say("", "for other languages:", *_shown(_described(one), reference))
        plain |= {"other": _described(one) | {"reference": _plain(reference)}}
    if as_json:
        say_json(plain)
    for one, reference in compared:
        if reference is not None:
            reference.check(one.name)


def _shown(found: Mapping[str, Any], compared: "Comparison | None") -> list[str]:
    reference = compared.sentence if compared else "unknown: no embeddings of these weights are recorded"
    return [*(f"{name}: {value}" for name, value in found.items()), f"reference: {reference}"]


def _plain(compared: "Comparison | None") -> dict[str, Any] | None:
    return asdict(compared) | {"agrees": compared.agrees} if compared else None


@commands.command()
def calibrate(
    crawl: CrawlOption,
    shard: Annotated[
        list[int] | None,
        typer.Option(help="Number of a scored shard; may be given several times; default: all."),
    ] = None,
    keep: Annotated[
        float, typer.Option(help="Share of the samples that the thresholds should keep, above 0 and up to 1.")
    ] = 0.5,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns key and label (1: caption and image match); replaces --keep."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose similarity thresholds that keep a share of the scored samples, or that fit labels best."""
    from rich.table import Table

    from laion_etl.evaluate import calibrate as task

    _, store = settings_and_store()
    read = task.read_similarities(crawl, shard or (), store)
    found = (
        task.propose_from_labels(read.by_route, task.read_labels(labels, read))
        if labels
        else task.propose(read.by_route, keep)
    )
    say(f"scores of {read.model}")
    table = Table("route", "samples", *(f"{share:.0%}" for share in task.QUANTILES), "threshold", "kept")
    for one in found:
        quantiles = (f"{value:.3f}" for value in one.quantiles.values())
        table.add_row(one.route, f"{one.samples:,}", *quantiles, f"{one.threshold:.4f}", f"{one.kept:.1%}")
    console().print(table)
    for one in found:
        if one.precision is not None and one.recall is not None:
            say(
                f"{one.route}: precision {one.precision:.3f}, recall {one.recall:.3f} on the labelled samples"
            )
        say(f"export LAION_ETL_CLIP_THRESHOLD_{one.route.upper()}={one.threshold:.4f}")
    if as_json:
        say_json({"crawl": crawl, "model": read.model, "routes": [asdict(one) for one in found]})


@commands.command("convert-head")
def convert_head(
    source: Annotated[
        Path, typer.Argument(help="Zip file of the SavedModel of LAION's CLIP-based NSFW detector.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write, in safetensors format.")],
) -> None:
    """Convert LAION's NSFW detector to a file for LAION_ETL_SAFETY_NSFW_HEAD; this needs no TensorFlow."""
    from laion_etl.score.keras_head import read_keras_head

    head = read_keras_head(source)
    head.save(target)
    console().print(f"{target}: a head for embeddings of {head.dim} numbers", highlight=False)


def _described(model: "ClipModel") -> dict[str, Any]:
    """Return a model's name, the digest of its weights and what else its embeddings depend on."""
    return {"model": model.name, "weights_sha256": model.weights_sha256, **model.identity}


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the class names in {path}: {error}") from error
