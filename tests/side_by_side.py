"""All tests in two processes side by side, which takes two thirds of the time: those of Airflow and of
faults wait a lot, the rest computes.

    python -m tests.side_by_side        exit code 0 when both passed

Pytest's arguments go to both. What the first says comes when both are done.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

APART = ("tests/airflow", "tests/faults", "tests/kubernetes")
_PYTEST = [sys.executable, "-m", "pytest"]


def main(arguments: Sequence[str]) -> int:
    """The worse of the two exit codes."""
    with tempfile.TemporaryFile() as said:
        # Not by a shell's `&`: what that starts ignores Ctrl-C, and so would all the tests start.
        apart = subprocess.Popen([*_PYTEST, *APART, *arguments], stdout=said, stderr=subprocess.STDOUT)
        try:
            ignored = [f"--ignore={folder}" for folder in APART]
            rest = subprocess.run([*_PYTEST, *ignored, *arguments], check=False).returncode
            print(f"waiting for {', '.join(APART)}", flush=True)
            code = apart.wait()
        except KeyboardInterrupt:
            apart.wait()  # it got the signal, too
            raise
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    return max(abs(rest), abs(code))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
