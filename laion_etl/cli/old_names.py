"""The names that commands had in version 0.1: they work until 0.3, and print the new name on stderr.

Nothing is printed where LAION_ETL_RUN_ID is set, that is in a task: an Airflow of version 0.1 whose
pods run this one would take the line for the cause of a command that ends without a message.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from laion_etl.cli.extras import Commands

_STAGES = ("parse", "load", "plan", "download", "score", "publish")
OLD_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("crawls",): ("crawl", "list"),
    ("discover",): ("crawl", "partitions"),
    **{(stage,): ("stage", stage) for stage in _STAGES},
    ("verify",): ("dataset", "verify"),
    ("diff",): ("dataset", "diff"),
    ("remove",): ("dataset", "remove"),
    ("report",): ("dataset", "report"),
    ("eval", "dataset"): ("dataset", "quality"),
    ("eval", "train-check"): ("dataset", "train-check"),
    ("eval",): ("model", "eval"),
    ("calibrate",): ("model", "calibrate"),
    ("convert-head",): ("model", "convert-head"),
    ("index",): ("search", "index"),
    ("search",): ("search", "query"),  # only with a text or an option; see `_renamed`
    ("explore",): ("search", "serve"),
    ("migrate",): ("db", "migrate"),
    ("forget",): ("db", "forget"),
    ("memory-export",): ("db", "seen-keys", "export"),
    ("memory-import",): ("db", "seen-keys", "import"),
}


class RootCommands(Commands):
    """All commands; those of `OLD_NAMES` are found under their old names too, but not listed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        old = self._renamed(args)
        if not old:
            return super().resolve_command(ctx, args)
        new = OLD_NAMES[old]
        command: Any = self
        for word in new:
            command = command.commands[word]
        if not ctx.resilient_parsing and not os.environ.get("LAION_ETL_RUN_ID"):
            print(
                f"warning: `laion-etl {' '.join(old)}` is now `laion-etl {' '.join(new)}`; "
                "version 0.3 removes the old name",
                file=sys.stderr,
            )
        return " ".join(new), command, args[len(old) :]

    def _renamed(self, args: Sequence[str]) -> tuple[str, ...]:
        """Return the old name that the arguments begin with; empty for a current one."""
        if args[0] == "search":  # the group of this name has taken the place of the command
            group: Any = self.commands["search"]
            return () if not args[1:] or args[1] in {*group.commands, "--help"} else ("search",)
        found = (tuple(args[:words]) for words in (2, 1))
        return next((old for old in found if old in OLD_NAMES), ())
