"""`laion-etl dataset push`: a published dataset on the Hugging Face Hub."""

from typing import Annotated

import typer

from laion_etl.cli.common import JsonOption, NameOption, console, say, say_json, settings_and_store
from laion_etl.cli.console import progress
from laion_etl.cli.extras import needs
from laion_etl.core.quantities import first_items, quantity

_LISTED = 20  # files that --dry-run shows


@needs("hub")
def push(
    repository: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME", help="Dataset repository on the Hub; created if there is none."),
    ],
    name: NameOption = "",
    public: Annotated[
        bool, typer.Option("--public", help="If the repository is new, make it public; default: private.")
    ] = False,
    with_samples: Annotated[
        bool, typer.Option("--with-samples", help="Also send joined samples, which have the images.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent and deleted, and change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Push the current version of a dataset to the Hugging Face Hub.

    Set HF_TOKEN to a token that may write to the repository, and HF_ENDPOINT for another server than
    huggingface.co. After an interruption run it again: it continues where it was.
    """
    from laion_etl.publish.push import Hub
    from laion_etl.publish.push_plan import find_wanted

    settings, store = settings_and_store()
    hub = Hub(repository)
    plan = hub.plan(find_wanted(name or settings.publish.name, store, samples=with_samples), store)
    sent = [*(path for path, _ in plan.files), *(path for path, _ in plan.root)]
    if dry_run:
        changes = [*(f"send {path}" for path in sent), *(f"delete {path}" for path in plan.deleted)]
        say(*first_items(changes, _LISTED))
    elif sent or plan.deleted:
        with progress(console(), "push, bytes") as report:
            hub.push(plan, store, report, private=not public)
    say(
        f"{plan.release.name}/{plan.release.version} -> {repository}: {quantity(len(sent), 'file')} "
        f"{'to send' if dry_run else 'sent'} ({quantity(plan.bytes, 'byte')}), {len(plan.deleted):,} "
        f"{'to delete' if dry_run else 'deleted'}, {plan.unchanged:,} already there"
    )
    if as_json:
        say_json(
            {
                "dataset": plan.release.name,
                "version": plan.release.version,
                "repository": repository,
                "dry_run": dry_run,
                "sent": sent,
                "bytes": plan.bytes,
                "deleted": list(plan.deleted),
                "unchanged": plan.unchanged,
            }
        )
