"""What Airflow's own parser says about arguments of `airflow`; nothing is run.

python tests/airflow/parse_commands.py '[["pools", "list"]]'    # prints errors; null: none
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn


class _WrongArgumentsError(Exception):
    """They are not accepted."""


def _fail(_: argparse.ArgumentParser, message: str) -> NoReturn:
    raise _WrongArgumentsError(message)


def _error(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> str | None:
    try:
        parser.parse_args(arguments)
    except _WrongArgumentsError as error:
        return str(error)
    return None


if __name__ == "__main__":
    from airflow.cli.cli_parser import DefaultHelpParser, get_parser

    DefaultHelpParser.error = argparse.ArgumentParser.error = _fail
    print(json.dumps([_error(get_parser(), arguments) for arguments in json.loads(sys.argv[1])]))
