"""Downloading beside img2dataset: same links, same nginx on loopback, one run.

    make peers && python -m benchmarks.download [--links N]

Needs nginx (Debian's package). Prints a table for benchmarks/RESULTS.md: links and samples a second, CPU
seconds for 1,000 samples over whole processes with their start, and peak memory of one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bad_web import BadWeb, bad_web
from benchmarks.photos import make_photos

_PHOTOS = 100
_HOSTS = 200  # loopback addresses that the links are spread over
_PEERS = Path(".venv-peers/bin/python")
_LOOPBACK = {"allow_networks": ["127.0.0.0/8"]}
_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; types {{ image/jpeg jpg; }}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {port} backlog=4096; root {photos}; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """A whole process and its children."""

    links: int
    kept: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    said: dict[str, object]


def run(command: list[str], links: int) -> Result:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}")
    said = json.loads(output.strip().splitlines()[-1])
    return Result(links, said["kept"], wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said)


def ours(urls: Path, ports: list[int], **changes: object) -> Result:
    settings = json.dumps({**_LOOPBACK, "ports": ports, **changes})
    return run([sys.executable, "-m", "benchmarks.download_ours", str(urls), settings], _count(urls))


def peer(urls: Path, mode: str) -> Result:
    return run([str(_PEERS), "benchmarks/download_peer.py", str(urls), mode], _count(urls))


def _count(urls: Path) -> int:
    return len(urls.read_text().split())


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[None]:
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, photos=folder / "photos"))
    process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "error.log")])
    time.sleep(1)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def good_links(path: Path, count: int, port: int) -> Path:
    lines = [f"http://{_host(n)}:{port}/{n % _PHOTOS:03d}.jpg?{n}" for n in range(count)]
    path.write_text("\n".join(lines))
    return path


def bad_links(path: Path, count: int, port: int, web: BadWeb) -> Path:
    """40% dead hosts (half silent, half refusing), 10% slow, 5% endless, the rest good; five links a host."""
    lines = []
    for n in range(count):
        group = n // 5
        host, kind = f"127.{1 + group // 250}.{group % 250}.1", group % 20
        bad = {0: web.endless, 1: web.slow, 2: web.slow, **dict.fromkeys(range(3, 7), web.black_hole)}
        bad |= dict.fromkeys(range(7, 11), web.closed)
        lines.append(f"http://{host}:{bad.get(kind, port)}/{n % _PHOTOS:03d}.jpg?{n}")
    path.write_text("\n".join(lines))
    return path


def _host(number: int) -> str:
    return f"127.0.{number % _HOSTS // 100}.{1 + number % 100}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--links", type=int, default=6_000)
    arguments.add_argument("--bad-links", type=int, default=2_000)
    arguments.add_argument("--port", type=int, default=8_099)
    options = arguments.parse_args()
    port = options.port
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        size = sum(path.stat().st_size for path in make_photos(folder / "photos", _PHOTOS)) / _PHOTOS
        results: list[tuple[str, Result]] = []
        with nginx(folder, port), bad_web() as web:
            urls = good_links(folder / "good.txt", options.links, port)
            bad = bad_links(folder / "bad.txt", options.bad_links, port, web)
            ports = [port, web.slow, web.endless, web.black_hole, web.closed]
            same = {"perceptual_hashes": False}
            results += [("resize 256: img2dataset", peer(urls, "resize"))]
            results += [("resize 256: ours", ours(urls, [port], **same))]
            results += [("resize 256: ours with phash and PDQ", ours(urls, [port]))]
            results += [("no re-encoding: img2dataset", peer(urls, "check"))]
            results += [("not even decoded: img2dataset", peer(urls, "raw"))]
            results += [
                ("no re-encoding: ours, headers checked", ours(urls, [port], resize_mode="no", **same))
            ]
            results += [("no re-encoding: ours, decoded and hashed", ours(urls, [port], resize_mode="no"))]
            results += [("bad web: img2dataset", peer(bad, "resize"))]
            results += [("bad web: ours", ours(bad, ports, **same))]
    show(results, size)


def show(results: list[tuple[str, Result]], size: float) -> None:
    table = Table("", "links/s", "samples/s", "kept", "CPU s / 1,000 samples", "peak MB")
    for name, one in results:
        table.add_row(
            name,
            f"{one.links / one.wall_s:.0f}",
            f"{one.kept / one.wall_s:.0f}",
            f"{one.kept:,}",
            f"{one.cpu_s / max(one.kept, 1) * 1000:.2f}",
            f"{one.peak_mb:.0f}",
        )
    console = Console(width=120)
    console.print(f"images of {size / 1000:.0f} kB on average", highlight=False)
    console.print(table)
    for name, one in results:
        if "network" in one.said:
            console.print(name, json.dumps(one.said), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
