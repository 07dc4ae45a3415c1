"""`laion-etl` with a pool that reads after the work: python -m tests.reading_at_the_end SECONDS ARGUMENT...

SECONDS: how long signals are put off then. It prints "ending" when nothing but threads keeps it.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from laion_etl import command_line

if __name__ == "__main__":
    command_line._LONGEST_END_S = float(sys.argv.pop(1))
    ThreadPoolExecutor(1).submit(sys.stdin.read)
    threading._register_atexit(print, "ending", flush=True)  # type: ignore[attr-defined]
    command_line.run()
