"""`laion-etl` and `python -m laion_etl`: expected errors end as one line on stderr and an exit code."""

import logging
import signal
import sys

from laion_etl.errors import LaionEtlError

STOPPED = 130


def main() -> None:
    """Runs the command line; exit code 0 done, 1 failed, 2 usage or settings, 130 stopped."""
    from laion_etl.cli import run

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # A pod is stopped by SIGTERM: let it end like Ctrl-C, which trio and our `finally`s understand.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        code = run()
    except LaionEtlError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        code = STOPPED
    sys.exit(code)


if __name__ == "__main__":
    main()
