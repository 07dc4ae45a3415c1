"""`laion-etl` and `python -m laion_etl`: expected errors end as one line on stderr and an exit code."""

import errno
import logging
import os
import signal
import sys
from typing import NoReturn

from laion_etl.core.errors import LaionEtlError, OutageError, Stopped
from laion_etl.core.one_line import one_line


def main() -> None:
    """Runs the command line; exit code 0 done, 1 failed, 2 usage or settings, 75 outage, 130 stopped."""
    run = os.environ.get("LAION_ETL_RUN_ID", "").replace("%", "%%")
    of_run = f"[{run}] " if run else ""  # joins the lines of a pod with a task of Airflow
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s {of_run}%(name)s: %(message)s")
    for library in ("urllib3", "psycopg"):  # retries are their business, failures ours
        logging.getLogger(library).setLevel(logging.ERROR)
    # A pod is stopped by SIGTERM: let it end like Ctrl-C, which trio and our `finally`s understand. What a
    # script starts in the background ignores SIGINT, and so SIGTERM would do nothing either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        try:
            _run()
        finally:
            _end_uninterrupted()
    except KeyboardInterrupt:  # one more, while the first ended the work
        _end_uninterrupted()
        _fail(Stopped("stopped; run the same command again to continue"))
    except LaionEtlError as error:
        _fail(error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try to write the rest again at the end
        print(
            "error: cannot write the output, or a temporary file: the disk is full; free some space",
            file=sys.stderr,
        )
        sys.exit(OutageError.exit_code)


def _fail(error: LaionEtlError) -> NoReturn:
    # It may quote a server's answer, which must not control the terminal.
    lines = map(one_line, str(error).split("\n"))
    print("error:", "\n".join(lines), file=sys.stderr)
    sys.exit(error.exit_code)


def _end_uninterrupted() -> None:
    """Ignore further signals: what libraries do at the end of the process would print a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _run() -> None:
    from laion_etl.cli import app

    try:
        app()
    except SystemExit:
        if sys.stdout is not None:  # None: it was closed
            sys.stdout.flush()  # at the end an error would be a traceback
        raise


def on_sigterm(*_: object) -> None:
    """The first SIGTERM is Ctrl-C. More of them change nothing: the batch may be on its way to the queue.

    A second Ctrl-C ends that, too. Not SIG_IGN, which processes started from now on would inherit.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
