"""Makes docs/commands.md from the help of the commands: python -m scripts.docs.commands > docs/commands.md"""

from collections.abc import Iterator
from typing import Any

import typer

from laion_etl.cli import app

_HEAD = """# Commands

*For those who look up what a command does and takes.*

Made from the help of the commands by `make docs`. With `--json` stdout is one JSON object; everything else
goes to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 75 an outage (run the same command
again), 130 stopped. The names of version 0.1
are in the [changelog](../CHANGELOG.md).
"""
_END = """
Next: [the how-to pages](how-to/README.md), which use them, and [the settings](configuration.md).
"""


def reference() -> str:
    """The page: a section for each group of --help, and in it each command with its options."""
    root: Any = typer.main.get_command(app)
    lines, panel = [_HEAD], ""
    for name in root.list_commands(None):
        command = root.commands[name]
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            lines.append(f"## {panel}\n")
        lines += _section(command, f"laion-etl {name}")
    return "\n".join(lines) + _END


def _section(command: Any, words: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        yield f"`{words}`: {command.help}\n"
        for name, child in command.commands.items():
            yield from _section(child, f"{words} {name}")
        return
    options = [one for one in command.params if one.name not in ("help", "as_json")]
    arguments = "".join(f" {_placeholder(one)}" for one in options if one.param_type_name == "argument")
    json = " [--json]" if any(one.name == "as_json" for one in command.params) else ""
    yield f"### `{words}{arguments}{json}`\n"
    yield f"{command.help}\n"
    if options:
        yield "\n".join(_row(one) for one in options) + "\n"


def _placeholder(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _row(option: Any) -> str:
    name = option.opts[-1] if option.param_type_name == "option" else option.name.upper()
    stated = option.default in (None, "") or option.default is False or "efault" in option.help
    default = "" if stated else option.default
    facts = [
        *(["required"] if option.required else []),
        *([f"default: {default}"] if default != "" and not option.required else []),
    ]
    return f"- `{name}`: {option.help}" + (f" ({'; '.join(facts)})" if facts else "")


if __name__ == "__main__":
    print(reference(), end="")
