"""`python -m laion_etl.minicrawl FOLDER`: builds the mini crawl and serves it until it is stopped."""

import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from laion_etl.core.errors import LaionEtlError
from laion_etl.minicrawl.build import build_minicrawl
from laion_etl.minicrawl.web import MiniWeb


def serve(
    folder: Annotated[Path, typer.Argument(help="Where the crawl files are written.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed gives another crawl.")] = 0,
) -> None:
    """Builds the mini crawl and serves it; prints the settings to export."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        crawl = build_minicrawl(folder, seed)
        with MiniWeb(crawl, port) as web:
            for name, value in crawl.environment(web.port).items():
                print(f"export {name}={shlex.quote(value)}")
            print(f"# serving {crawl.crawl} at {web.url}; Ctrl-C stops", flush=True)
            stop.wait()
    except LaionEtlError as error:
        print(f"minicrawl: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(serve)
