"""The command line: what most people need first, then groups, among them one command per stage.

With `--json` stdout is one JSON object, on one line; this is what Airflow's tasks read. With
`laion-etl --result URI COMMAND ... --json` it is also written to URI, for callers without access to stdout.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from laion_etl import __version__
from laion_etl.cli import crawls, dataset, db, model, search, stages, whole
from laion_etl.cli.common import AS_JSON, RESULT, console
from laion_etl.cli.old_names import RootCommands

_FIRST = "Build a dataset"
_PUBLISHED = "Use a published dataset"
_PARTS = "Single stages, and the database"


class _InOrder(RootCommands):
    def list_commands(self, ctx: object) -> list[str]:
        del ctx
        return list(_ORDER)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Raises BadParameter for --result with one that has no result to write."""
        wanted = ctx.params.get("result")
        if wanted and not ctx.resilient_parsing and not {"--json", "--help"} & {*args}:
            raise typer.BadParameter(
                "without --json there is no result to write; add --json to the command, or remove --result",
                param_hint="--result",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_InOrder,
    help="Build a LAION-5B style image-text dataset from Common Crawl.\n\n"
    "To see all stages at work, run `laion-etl demo`, which needs no settings. Settings are environment "
    "variables that begin with LAION_ETL_; docs/configuration.md lists them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        console().print(f"laion-etl {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    result: Annotated[
        str,
        typer.Option(
            metavar="URI", help="Also write the result of a command with --json to this file (path or s3://)."
        ),
    ] = "",
) -> None:
    del version  # handled by its callback
    RESULT.set(result)
    AS_JSON.set(False)


# In the order of --help: what a newcomer runs first comes first.
_ORDER: dict[str, tuple[str, Callable[..., None] | typer.Typer]] = {
    "demo": (_FIRST, whole.demo),
    "crawl": (_FIRST, crawls.commands),
    "estimate": (_FIRST, crawls.estimate_crawl),
    "run": (_FIRST, whole.run_crawl),
    "status": (_FIRST, whole.status),
    "diagnose": (_FIRST, whole.diagnose),
    "dashboard": (_FIRST, whole.dashboard),
    "dataset": (_PUBLISHED, dataset.commands),
    "search": (_PUBLISHED, search.commands),
    "model": (_PUBLISHED, model.commands),
    "stage": (_PARTS, stages.commands),
    "db": (_PARTS, db.commands),
}
for _name, (_panel, _command) in _ORDER.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name, rich_help_panel=_panel)
    else:
        app.command(_name, rich_help_panel=_panel)(_command)
# Also without its group: it is what an operator needs at night, after an outage of an older version.
app.command("requeue", hidden=True)(db.requeue)
