"""The demo, where Airflow and the commands of its tasks are forks of processes that have imported them.

    python -m tests.airflow.forked_demo AIRFLOW COMMANDS

Both are programs of tests/forked_command.py. No link waits for a time limit (tests/prompt_web.py): on a busy
machine good links would reach those of the demo, too. All else is as a user has it: the services, three
components, a database that is migrated, a process for each command.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from laion_etl import __main__
from laion_etl.demo import demo
from laion_etl.demo.airflow import reserved_port
from laion_etl.minicrawl import web
from tests.prompt_web import LONG_LIMITS, PromptWeb


@contextmanager
def port_of_the_api_server() -> Iterator[int]:
    """A fork does not look for the address of its API server when it starts."""
    with reserved_port() as port:
        address = ("--host", "127.0.0.1", "--port", str(port))
        demo.COMPONENTS["api-server"] = (*demo.COMPONENTS["api-server"], *address)
        yield port


def main(airflow: str, commands: str) -> None:
    def forked(*arguments: str) -> list[str]:
        return [airflow, *arguments]

    demo._airflow = forked
    demo.reserved_port = port_of_the_api_server
    demo._SETTINGS.update(LONG_LIMITS, LAION_ETL_RUNNER="venv", LAION_ETL_AIRFLOW_VENV=commands)
    web.MiniWeb = PromptWeb  # type: ignore[misc]
    sys.argv = ["laion-etl", "demo"]
    __main__.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
