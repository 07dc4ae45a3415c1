"""`laion-etl` and `python -m laion_etl`: signals end it in plain words from its first moment on.

What the command line imports takes a while, in which Python would answer with a traceback.
"""

import os
import signal

STOPPED = "stopped; run the same command again to continue"


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, _end)
    # A command that started this one may have had them wait: core/programs.py, too much to import before.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from laion_etl.command_line import run

    run()


def _end(*_: object) -> None:
    """End at once: nothing has begun."""
    try:
        os.write(2, f"error: {STOPPED}\n".encode())
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()
