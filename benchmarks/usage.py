"""Runs a command and prints its usage to a file: python -I -S usage.py FILE COMMAND...

A process of its own, and small: the memory that Linux reports of a process is at least that of the process
that started it. SIGTERM goes to the command. The exit code is the command's.
"""

import json
import os
import signal
import sys
import time


def main() -> int:
    """Return the exit code of the command."""
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        print(__doc__)  # without argparse, for this process has to stay small
        return 2
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    found = {
        "seconds": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_bytes": usage.ru_maxrss * 1024,
    }
    with open(sys.argv[1], "w") as file:  # noqa: PTH123 - pathlib takes a tenth of a second to import
        json.dump(found, file)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
