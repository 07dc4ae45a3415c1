"""The command that publishes the crawls of a divided removal again, in ranges."""

from typing import Annotated

import typer

from laion_etl.cli.common import (
    JsonOption,
    all_ranges,
    as_name,
    read_range,
    say,
    say_json,
    settings_and_store,
)
from laion_etl.core.quantities import quantity


def republish(
    request_id: Annotated[
        str, typer.Option("--request", callback=as_name, help="Id of a removal whose files are rewritten.")
    ],
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Print the ranges in which its crawls are published again.")
    ] = False,
    hashes: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Only hash the images of range I of N, for all ranges before the first is published; needed "
            "if the dataset leaves out duplicates.",
        ),
    ] = "",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Only compare the images of all ranges, after --hashes and before --range; needed if the "
            "dataset leaves out near or semantic duplicates.",
        ),
    ] = False,
    allow_failures: Annotated[
        bool,
        typer.Option(
            "--allow-failures",
            help="With --prepare: crawls that cannot be prepared are no error; they are left to "
            "`dataset remove --finish`.",
        ),
    ] = False,
    part: Annotated[
        str, typer.Option("--range", metavar="I/N", help="Publish one range, such as 3/16.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Publish the crawls of a divided removal again in ranges, between its own and `dataset remove --finish`.

    Ranges may run side by side, and can be repeated. Those in which the removal has changed nothing are
    copied from the version before. Crawls of one range are left to `--finish`.
    """
    from laion_etl.removal import republish as publications
    from laion_etl.removal import stage

    if prepare + bool(hashes) + compare + bool(part) != 1:
        raise typer.BadParameter("give one of --prepare, --hashes, --compare and --range")
    settings, store = settings_and_store()
    if prepare:
        found = stage.prepare_publications(request_id, settings, store)
        say(
            f"removal {request_id}: {quantity(len(found.listed), 'crawl')} to publish in "
            f"{quantity(found.tasks, 'range')}"
        )
        for cause in found.left_out:
            say(f"not prepared: {cause}")
        if not allow_failures:
            publications.check_all_prepared(found)
        result = {
            "ranges": all_ranges(found.tasks),
            "duplicates": found.duplicates,
            "left_out": list(found.left_out),
        }
    elif compare:
        publications.compare_all(request_id, settings, store)
        result = {"range": ""}
    else:
        step = publications.hash_part if hashes else publications.publish_part
        done = step(request_id, *read_range(hashes or part), settings, store)
        say(f"removal {request_id}: range {hashes or part} is done, {quantity(done, 'range')} of crawls")
        result = {"range": hashes or part, "done": done}
    if as_json:
        say_json({"id": request_id, **result})
