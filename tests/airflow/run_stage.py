"""A task's part of one stage: runs its command with `run_here` and prints the outcome as JSON."""

import json
import os
from pathlib import Path

from airflow.sdk.exceptions import AirflowException

from laion_etl.airflow.commands import Command, run_here
from laion_etl.core.errors import LaionEtlError

if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(Path.cwd())  # of the command: nothing is imported from the working folder
    try:
        outcome = ["result", run_here(Command(["parse", "--crawl", "C D"]))]
    except (AirflowException, LaionEtlError) as error:
        outcome = [type(error).__name__, str(error)]
    print(json.dumps(outcome), flush=True)
