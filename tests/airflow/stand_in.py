"""Stands for the program `laion-etl`: ends as the plan of its crawl says, which has one step for each start.

A step is an exit code, `stay` (until SIGTERM) or `unknown option`; after the last one it does its work. The
folder $PLANS has CRAWL.json, and gets a file for each start. It runs without site packages.
"""

import json
import os
import signal
import sys
from pathlib import Path

USAGE = """\
Usage: laion-etl stage parse [OPTIONS] [wat]...
Try 'laion-etl stage parse --help' for help.
╭─ Error ──────────────────────────────────────────────────╮
│ Invalid value for '--partition': Input should be a valid │
│ integer, unable to parse string as an integer            │
╰──────────────────────────────────────────────────────────╯
"""


def main() -> int:
    option = dict(zip(sys.argv, sys.argv[1:], strict=False))
    plan = Path(os.environ["PLANS"], f"{option['--crawl']}.json")
    starts = len([*plan.parent.glob(f"{plan.stem}.start-*")]) + 1
    plan.with_suffix(f".start-{starts}").touch()
    steps = json.loads(plan.read_text())
    step = steps[starts - 1] if starts <= len(steps) else None
    if step == "stay":
        signal.signal(signal.SIGTERM, lambda *_: stop())
        print("started", flush=True)
        signal.pause()
    if step == "unknown option":
        print(USAGE, file=sys.stderr)
        return 2
    if step is not None:
        print(f"error: cause of {step}", file=sys.stderr)
        return int(step)
    result = json.dumps({"starts": starts})
    if "--result" in option:
        Path(option["--result"]).parent.mkdir(parents=True, exist_ok=True)
        Path(option["--result"]).write_text(result)
    print(result)
    return 0


def stop() -> None:
    print("error: stopped; run the same command again to continue", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    sys.exit(main())
