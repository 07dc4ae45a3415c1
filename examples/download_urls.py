"""Download a list of images to a shard. The list has a URL and its caption, separated by a tab, on each line.

python examples/download_urls.py list.tsv shards
"""

import sys
from pathlib import Path

import laion_etl as le


def main(listed: str, out: str) -> None:
    lines = [line.split("\t", 1) for line in Path(listed).read_text().splitlines()]
    urls, captions = [line[0] for line in lines], [line[1] for line in lines]
    shard = le.download(urls, captions, out, image_size=256)
    print(shard.path)
    print(shard.funnel)
    for row in shard.outcomes.to_pylist():
        print(row["status"], row["url"], row["error_message"] or "")


if __name__ == "__main__":
    main(*sys.argv[1:])
