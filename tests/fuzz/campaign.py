"""Fuzzes every target for its share of some minutes: python -m tests.fuzz.campaign MINUTES [TARGET ...]

Inputs that cover something new are kept in data/fuzz/TARGET, so that the next campaign goes on from there.
Ends with exit code 1 if a target failed; what it failed on is data/fuzz/found-TARGET-*.
"""

import re
import resource
import subprocess
import sys
from pathlib import Path
from shutil import copy

from tests.fuzz.targets import TARGETS

_SEEDS = Path(__file__).parent / "seeds"
_FOLDER = Path("data/fuzz")
_LONGEST_S = 30  # that one input may take
_MEMORY_MB = 3_000
_STATUS = re.compile(r"^#(\d+)\s.*?cov: (\d+)", re.MULTILINE)


def main() -> int:
    minutes, names = float(sys.argv[1]), sys.argv[2:] or list(TARGETS)
    failed = [name for name in names if not _survives(name, round(60 * minutes / len(names)))]
    if failed:
        print(f"failed: {', '.join(failed)}; mend the cause, and put what was found into {_SEEDS}")
    return bool(failed)


def _survives(name: str, seconds: int) -> bool:
    corpus = _FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in (_SEEDS / name).iterdir():
        copy(seed, corpus)
    command = [sys.executable, "-m", "tests.fuzz.run", name, str(corpus), f"-max_total_time={seconds}"]
    limits = [f"-timeout={_LONGEST_S}", f"-rss_limit_mb={_MEMORY_MB}"]
    place = f"-artifact_prefix={_FOLDER}/found-{name}-"
    before_s = _cpu_s()
    ended = subprocess.run([*command, *limits, place], capture_output=True, text=True, check=False)
    log = _FOLDER / f"{name}.log"
    log.write_text(ended.stdout + ended.stderr)
    inputs, covered = (_STATUS.findall(log.read_text()) or [("0", "0")])[-1]
    outcome = "" if ended.returncode == 0 else f"; FAILED ({ended.returncode}), see {log}"
    used = f"{_cpu_s() - before_s:.0f} CPU s"
    print(f"{name}: {used}, {int(inputs):,} inputs, {covered} places covered{outcome}", flush=True)
    return ended.returncode == 0


def _cpu_s() -> float:
    """Returns the CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
