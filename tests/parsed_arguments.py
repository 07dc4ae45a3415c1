"""What the parsers of other programs of the project say about arguments; the programs are not run.

python -m tests.parsed_arguments '[["benchmarks.score", "--samples", "512"]]'    # prints errors; null: none

For a process that has imported what takes long, as those of tests/preloaded_commands.py have.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest


class _ParsedError(Exception):
    """The arguments were read."""


class _WrongArgumentsError(Exception):
    """They are not accepted."""


def error(name: str, arguments: Sequence[str]) -> str | None:
    """What is wrong with the arguments of a module, by the parser that its `main` makes, if it makes one."""
    module = importlib.import_module(name)
    if not hasattr(module, "argparse"):
        return None
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(parser, *given)
        raise _ParsedError

    def fail(_: argparse.ArgumentParser, message: str) -> NoReturn:
        raise _WrongArgumentsError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.setattr(argparse.ArgumentParser, "error", fail)
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            module.main()
        except _ParsedError:
            return None
        except _WrongArgumentsError as found:
            return str(found)
    return "it has read no arguments"


if __name__ == "__main__":
    print(json.dumps([error(name, arguments) for name, *arguments in json.loads(sys.argv[1])]))
