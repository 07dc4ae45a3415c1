"""The command line: one command per stage, and a few that run or show them all.

With `--json` the last line on stdout is one JSON object; this is what Airflow's tasks read. With
`laion-etl --result URI COMMAND ... --json` it is also written to URI, for callers without access to stdout.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from laion_etl import __version__
from laion_etl.cli import crawls, dataset, db, evaluation, search, stages, whole
from laion_etl.cli.common import RESULT, console
from laion_etl.cli.extras import Commands

app = typer.Typer(
    cls=Commands,
    help="Rebuilds a LAION-5B style image-text dataset from Common Crawl.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"laion-etl {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    result: Annotated[
        str, typer.Option(metavar="URI", help="Also write the JSON of --json to this file (path or s3://).")
    ] = "",
) -> None:
    del version  # handled by its callback
    RESULT.set(result)


# In the order of --help.
_COMMANDS: dict[str, Callable[..., None]] = {
    "crawls": crawls.crawls,
    "estimate": crawls.estimate_crawl,
    "discover": crawls.discover,
    "parse": stages.parse,
    "load": stages.load,
    "plan": stages.plan,
    "download": stages.download,
    "score": stages.score,
    "publish": stages.publish,
    "run": whole.run_crawl,
    "demo": whole.demo,
    "status": whole.status,
    "dashboard": whole.dashboard,
    "report": whole.report,
    "forget": whole.forget,
    "verify": dataset.verify,
    "diff": dataset.diff,
    "remove": dataset.remove,
    "index": search.index,
    "search": search.search,
    "explore": search.explore,
    "calibrate": evaluation.calibrate,
    "convert-head": stages.convert_head,
    "migrate": db.migrate,
    "memory-export": db.memory_export,
    "memory-import": db.memory_import,
}
for _named, _command in _COMMANDS.items():
    app.command(_named)(_command)
app.add_typer(evaluation.commands, name="eval")
