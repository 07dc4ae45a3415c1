"""A pool whose only process waits for work: python -m tests.pool_of_one prints its number, and waits, too."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from laion_etl.core.background import end_with_parent_process

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent_process)
    print(pool.submit(os.getpid).result(), flush=True)
    sys.stdin.read()
