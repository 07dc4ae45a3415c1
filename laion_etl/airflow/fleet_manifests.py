"""Prints the manifests of a worker fleet for LAION_ETL_FLEET=keda (keda.py).

    python -m laion_etl.airflow.fleet_manifests CC-MAIN-2024-38 --workers 300 | kubectl apply -f -

Run it where Airflow's settings are, for example with `kubectl exec` in the scheduler.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from laion_etl.core.consumers import Consumer
from laion_etl.core.errors import LaionEtlError
from laion_etl.settings import load_settings


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect the file descriptor: loggers hold the stream object, so replacing sys.stdout is not enough."""
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, sys.stdout.fileno())
        os.close(kept)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the manifests as one JSON list."""
    parser = argparse.ArgumentParser(prog="python -m laion_etl.airflow.fleet_manifests")
    parser.add_argument("crawl")
    parser.add_argument("--consumer", choices=list(Consumer), type=Consumer, default=Consumer.DOWNLOAD)
    parser.add_argument("--workers", type=int, default=50, help="maximum number of workers (default: 50)")
    given = parser.parse_args(arguments)
    with _stdout_to_stderr():  # Airflow logs while it is imported
        from laion_etl.airflow.keda import manifests
    try:
        made = manifests(given.crawl, given.consumer, given.workers, load_settings())
    except LaionEtlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
