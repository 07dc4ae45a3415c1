"""Takes the place of a decoder process, and answers each image with its arguments: two lengths and a text."""

import sys

from laion_etl.download.decoder_protocol import ANSWER, READY, REQUEST
from laion_etl.sandbox.fork_server import serve_forks


def main() -> None:
    text_length, data_length, text = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    serve_forks()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(READY)
    sink.flush()
    while header := source.read(REQUEST.size):
        source.read(*REQUEST.unpack(header))
        sink.write(ANSWER.pack(text_length, data_length) + text.encode())
        sink.flush()


if __name__ == "__main__":
    main()
