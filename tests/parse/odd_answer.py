"""Takes the place of the process that parses HTML, and answers each page with its argument, or worse."""

import signal
import sys

from laion_etl.parse.html_protocol import ANSWER, READY, REQUEST

_LENGTHS = {"silent": 1_000, "ends": 1_000, "long": 2, "huge": (1 << 32) - 1}  # that are not true


def main() -> None:
    kind = sys.argv[1]
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(READY)
    sink.flush()
    if kind != "silent":
        source.read(sum(REQUEST.unpack(source.read(REQUEST.size))))
    sink.write(ANSWER.pack(_LENGTHS.get(kind, len(kind))) + kind.encode())
    sink.flush()
    if kind != "ends":
        signal.pause()


if __name__ == "__main__":
    main()
