"""Downloading compared with img2dataset: same links, same nginx on loopback, one run.

    make peers && python -m benchmarks.download [--links N] [--rounds N]

Needs nginx (Debian's package). Prints tables for benchmarks/RESULTS.md: links and samples a second, CPU
seconds for 1,000 samples over whole processes with their start, and the peak memory of all processes of
a way together (proportional set size, sampled five times a second). Then the limits: the cost of decoding
alone and of requests alone; and the memory of our worker over ten batches.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.bad_web import BadWeb, bad_web
from benchmarks.photos import make_photos
from laion_etl.sandbox.limits import confined_environment

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
    figures: dict[str, object]


def run(command: list[str], links: int, environment: dict[str, str] | None = None) -> Result:
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    peak = [0.0]
    threading.Thread(target=_watch_memory, args=(process.pid, peak), daemon=True).start()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}")
    figures = json.loads(output.strip().splitlines()[-1])
    return Result(links, figures["kept"], wall_s, usage.ru_utime + usage.ru_stime, peak[0], figures)


def _watch_memory(pid: int, peak: list[float]) -> None:
    """Memory of a process and its children in MB, until it ends."""
    try:
        while True:
            root = psutil.Process(pid)
            together = 0
            for one in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    together += one.memory_full_info().pss
            peak[0] = max(peak[0], together / 1e6)
            time.sleep(0.2)
    except psutil.Error:
        return


def ours(urls: Path, ports: list[int], **changes: object) -> Result:
    settings = _settings(ports, **changes)
    return run([sys.executable, "-m", "benchmarks.download_ours", str(urls), settings], _count(urls))


def _settings(ports: list[int], **changes: object) -> str:
    return json.dumps({**_LOOPBACK, "ports": ports, **changes})


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
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--port", type=int, default=8_099)
    options = arguments.parse_args()
    port, plain = options.port, {"perceptual_hashes": False}
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        photos = make_photos(folder / "photos", _PHOTOS)
        with nginx(folder, port), bad_web() as web:
            urls = good_links(folder / "good.txt", options.links, port)
            bad = bad_links(folder / "bad.txt", options.bad_links, port, web)
            ports = [port, web.slow, web.endless, web.black_hole, web.closed]
            ways: dict[str, Callable[[], Result]] = {
                "resize 256: img2dataset": lambda: peer(urls, "resize"),
                "resize 256: ours": lambda: ours(urls, [port], **plain),
                "resize 256: ours with phash and PDQ": lambda: ours(urls, [port]),
                "no re-encoding: img2dataset": lambda: peer(urls, "check"),
                "not even decoded: img2dataset": lambda: peer(urls, "raw"),
                "no re-encoding: ours, headers checked": lambda: ours(
                    urls, [port], resize_mode="no", **plain
                ),
                "no re-encoding: ours, decoded and hashed": lambda: ours(urls, [port], resize_mode="no"),
            }
            for _ in range(options.rounds):
                for way, measure in ways.items():
                    results.setdefault(way, []).append(measure())
            results["bad web: img2dataset"] = [peer(bad, "resize")]
            results["bad web: ours"] = [ours(bad, ports, **plain)]
            requests = run([sys.executable, "-m", "benchmarks.download_limits", str(urls)], options.links)
            decoding = run(
                [sys.executable, "-m", "benchmarks.download_limits", *map(str, photos)],
                _PHOTOS,
                confined_environment(),
            )
            many = ours(good_links(folder / "many.txt", 10_000, port), [port])
            ten = run(
                [sys.executable, "-m", "benchmarks.download_ours", str(urls), _settings([port]), "10"],
                options.links,
            )
    console = Console(width=120)
    size = sum(result.figures["network"]["bytes"] for result in results["resize 256: ours"])  # type: ignore[index]
    kept = sum(result.kept for result in results["resize 256: ours"])
    console.print(f"images of {size / kept / 1000:.0f} kB on average, median of {options.rounds}")
    console.print(_table(results))
    console.print(f"a request and its body, bare client: {requests.figures['cpu_ms']} ms of processor time")
    console.print(f"decode to 256, encode, sha256, md5: {decoding.figures['cpu_ms']} ms of processor time")
    console.print(f"a batch of 10,000 links: {many.peak_mb:.0f} MB, all processes together")
    console.print(f"the worker alone after each of ten batches: {ten.figures['worker_mb']} MB")
    console.print(json.dumps(results["bad web: ours"][0].figures), soft_wrap=True)


def _table(results: dict[str, list[Result]]) -> Table:
    table = Table("", "links/s", "samples/s", "kept", "CPU s / 1,000 samples", "peak MB")
    for name, rounds in results.items():
        table.add_row(
            name,
            f"{median(one.links / one.wall_s for one in rounds):.0f}",
            f"{median(one.kept / one.wall_s for one in rounds):.0f}",
            f"{rounds[0].kept:,}",
            " ".join(f"{one.cpu_s / max(one.kept, 1) * 1000:.2f}" for one in rounds),
            f"{max(one.peak_mb for one in rounds):.0f}",
        )
    return table


if __name__ == "__main__":
    main()
