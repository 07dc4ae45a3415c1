"""The web server over real sockets: each behaviour as a client meets it."""

import contextlib
import gzip
import http.client
import io
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import urllib3
from PIL import Image

from laion_etl.core.errors import DemoError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.minicrawl.behaviours import MEMBERS, Behaviour, Resource
from laion_etl.minicrawl.build import CRAWL, MiniCrawl
from laion_etl.minicrawl.drawn_images import BOMB_SIDE, Form, pixel_bomb
from laion_etl.minicrawl.web import _IDLE_S, MiniWeb

LONGEST_S = 120.0  # for a hang


@pytest.fixture(scope="module")
def miniweb(minicrawl: MiniCrawl) -> Iterator[MiniWeb]:
    """One whose silent servers are silent: the tests of a downloader have another."""
    with MiniWeb(minicrawl) as web:
        yield web


def places(crawl: MiniCrawl, behaviour: Behaviour) -> list[tuple[str, str, Resource]]:
    """(host, path, resource) of everything with a behaviour."""
    found = [(h, p, r) for (h, p), r in crawl.world.resources.items() if r.behaviour is behaviour]
    assert found, f"the world has no {behaviour}"
    return found


def get(web: MiniWeb, host: str, path: str, timeout: float = LONGEST_S) -> urllib3.BaseHTTPResponse:
    with urllib3.HTTPConnectionPool("127.0.0.1", web.port, timeout=timeout, retries=False) as pool:
        return pool.request("GET", path, headers={"Host": host}, redirect=False, decode_content=False)


def follow(web: MiniWeb, url: str, hops: int = 5) -> tuple[urllib3.BaseHTTPResponse, int]:
    """The response at the end of the redirects, and how many there were."""
    for hop in range(hops + 1):
        host = urlsplit(url).netloc
        response = get(web, host, url.partition(host)[2])
        if response.status != 302:
            return response, hop
        url = urljoin(url, response.headers["Location"])
    raise AssertionError(f"more than {hops} redirects to {url}")


def first_of(web: MiniWeb, minicrawl: MiniCrawl, behaviour: Behaviour) -> urllib3.BaseHTTPResponse:
    host, path, _ = places(minicrawl, behaviour)[0]
    return get(web, host, path)


def raw(web: MiniWeb, host: str, path: str, timeout: float) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", web.port), timeout=timeout)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return connection


def test_every_link_that_must_succeed_leads_to_a_whole_image(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    urls = [url for url, status in minicrawl.expected.items() if status is DownloadStatus.SUCCESS]
    hops = set()
    for url in urls:
        response, hop = follow(miniweb, url)
        hops.add(hop)
        assert response.status == 200, url
        assert len(response.data) >= 5_000, url
        with Image.open(io.BytesIO(response.data)) as image:
            image.load()
            assert image.format in ("JPEG", "PNG", "WEBP")
            assert not getattr(image, "is_animated", False)
    assert hops == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("form", "file_format", "mode"),
    [
        (Form.CMYK_JPEG, "JPEG", "CMYK"),
        (Form.GREY_JPEG, "JPEG", "L"),
        (Form.ALPHA_PNG, "PNG", "RGBA"),
        (Form.PALETTE_PNG, "PNG", "P"),
        (Form.WEBP, "WEBP", "RGB"),
        (Form.ANIMATED_GIF, "GIF", "RGB"),
        (Form.BMP, "BMP", "RGB"),
    ],
)
def test_images_come_in_many_forms(
    minicrawl: MiniCrawl, miniweb: MiniWeb, form: Form, file_format: str, mode: str
) -> None:
    shown = places(minicrawl, Behaviour.IMAGE)
    host, path, resource = next(place for place in shown if place[2].image and place[2].image.form is form)
    data = get(miniweb, host, path).data
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == (file_format, mode) or form is Form.ANIMATED_GIF
        assert image.format == file_format
        assert resource.image is not None
        assert image.size == (resource.image.width, resource.image.height)
        assert getattr(image, "n_frames", 1) == (2 if form is Form.ANIMATED_GIF else 1)


def test_a_rotated_image_says_how_to_turn_it(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    images = [p for p in minicrawl.world.images if p.form is Form.ROTATED_JPEG]
    shown = places(minicrawl, Behaviour.IMAGE)
    host, path, _ = next(place for place in shown if place[2].image in images)
    with Image.open(io.BytesIO(get(miniweb, host, path).data)) as image:
        assert image.getexif()[0x0112] == 6


def test_a_dozen_images_are_of_high_resolution(minicrawl: MiniCrawl) -> None:
    assert sum(min(p.width, p.height) >= 1_024 for p in minicrawl.world.images) == 12


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Behaviour.NOT_FOUND, 404),
        (Behaviour.GONE, 410),
        (Behaviour.SERVER_ERROR, 500),
        (Behaviour.UNAVAILABLE, 503),
    ],
)
def test_errors_have_their_status(
    minicrawl: MiniCrawl, miniweb: MiniWeb, behaviour: Behaviour, status: int
) -> None:
    assert first_of(miniweb, minicrawl, behaviour).status == status


def test_opt_outs_are_in_the_header(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    assert first_of(miniweb, minicrawl, Behaviour.NO_AI).headers["X-Robots-Tag"] == "noai"
    assert "noimageai" in first_of(miniweb, minicrawl, Behaviour.NO_IMAGE_AI).headers["X-Robots-Tag"]
    assert first_of(miniweb, minicrawl, Behaviour.TDM_RESERVED).headers["TDM-Reservation"] == "1"


def test_an_opt_out_is_in_the_metadata_of_a_whole_image(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    with Image.open(io.BytesIO(first_of(miniweb, minicrawl, Behaviour.NO_DATA_MINING).data)) as image:
        image.load()
        assert b"<plus:DataMining>http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED" in image.info["xmp"]


def test_what_robots_txt_forbids_is_there_all_the_same(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    forbidden = [place for place in places(minicrawl, Behaviour.IMAGE) if place[1].startswith(MEMBERS)]
    assert len(forbidden) == 10
    for host, path, _ in forbidden:
        rules = get(miniweb, host, "/robots.txt").data.decode()
        assert f"Disallow: {MEMBERS}/" in rules
        assert get(miniweb, host, path).status == 200


def test_tiny_and_empty_bodies_are_below_five_thousand_bytes(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    tiny = [p for p in places(minicrawl, Behaviour.IMAGE) if p[2].image and p[2].image.width == 64]
    assert len(tiny) == 24
    assert all(0 < len(get(miniweb, host, path).data) < 5_000 for host, path, _ in tiny)
    assert first_of(miniweb, minicrawl, Behaviour.EMPTY).data == b""


def test_a_truncated_file_has_the_right_length_but_does_not_decode(
    minicrawl: MiniCrawl, miniweb: MiniWeb
) -> None:
    for host, path, _ in places(minicrawl, Behaviour.TRUNCATED):
        response = get(miniweb, host, path)
        assert int(response.headers["Content-Length"]) == len(response.data) >= 5_000
        with Image.open(io.BytesIO(response.data)) as image, pytest.raises(OSError, match="truncated"):
            image.load()


def test_a_cut_off_body_is_shorter_than_announced(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        first_of(miniweb, minicrawl, Behaviour.CUT_OFF)


def test_a_web_page_is_labelled_as_an_image(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    response = first_of(miniweb, minicrawl, Behaviour.HTML)
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.data.startswith(b"<!DOCTYPE html>")
    assert len(response.data) > 5_000


def test_the_pixel_bomb_is_small_and_declares_900_megapixels(
    minicrawl: MiniCrawl, miniweb: MiniWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = first_of(miniweb, minicrawl, Behaviour.PIXEL_BOMB).data
    assert data == pixel_bomb()
    assert 5_000 < len(data) < 300_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (BOMB_SIDE, BOMB_SIDE)


def test_the_gzip_bomb_unpacks_to_a_thousand_times_its_size(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    response = first_of(miniweb, minicrawl, Behaviour.GZIP_BOMB)
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(response.data) < 1_000_000
    with gzip.open(io.BytesIO(response.data)) as unpacked:
        assert sum(len(unpacked.read(1_000_000)) for _ in range(40)) == 40_000_000


def test_chunked_bodies_and_bodies_without_length_are_whole(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    for behaviour in (Behaviour.CHUNKED, Behaviour.UNTIL_CLOSE):
        response = first_of(miniweb, minicrawl, behaviour)
        assert "Content-Length" not in response.headers
        with Image.open(io.BytesIO(response.data)) as image:
            image.load()


def test_redirects_lead_into_a_loop_to_private_addresses_and_to_files(
    minicrawl: MiniCrawl, miniweb: MiniWeb
) -> None:
    targets = {get(miniweb, h, p).headers["Location"] for h, p, _ in places(minicrawl, Behaviour.REDIRECT)}
    private = {"http://10.0.0.8/admin.jpg", "//169.254.169.254/latest/", "file:///etc/passwd"}
    assert private | {"/loop/a"} <= targets
    here, seen = "/loop/a", []
    for _ in range(4):
        seen.append(here)
        here = get(miniweb, places(minicrawl, Behaviour.REDIRECT)[0][0], here).headers["Location"]
    assert seen == ["/loop/a", "/loop/b"] * 2


def test_a_slow_body_trickles(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    host, path, _ = places(minicrawl, Behaviour.SLOW)[0]
    with raw(miniweb, host, path, timeout=LONGEST_S) as connection:
        parts = [connection.recv(65_536) for _ in range(4)]
    received = b"".join(parts)
    assert all(parts)
    assert len(received) < int(received.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])


def test_a_silent_server_says_nothing(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    host, path, _ = places(minicrawl, Behaviour.SILENT)[0]
    with raw(miniweb, host, path, timeout=1) as connection, pytest.raises(TimeoutError):
        connection.recv(1)


def test_an_endless_body_goes_beyond_the_largest_image(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    host, path, _ = places(minicrawl, Behaviour.ENDLESS)[0]
    received = 0
    with raw(miniweb, host, path, timeout=LONGEST_S) as connection:
        while received < 25_000_000:
            received += len(connection.recv(1 << 20))
    assert received >= 25_000_000


def test_garbage_is_no_http(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    host, path, _ = places(minicrawl, Behaviour.NOT_HTTP)[0]
    connection = http.client.HTTPConnection("127.0.0.1", miniweb.port, timeout=LONGEST_S)
    connection.request("GET", path, headers={"Host": host})
    with pytest.raises(http.client.HTTPException):
        connection.getresponse()
    connection.close()


def test_a_tls_handshake_fails_at_once(miniweb: MiniWeb) -> None:
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", miniweb.port), timeout=_IDLE_S / 2) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="photos.minicrawl.example")


def test_the_crawl_files_are_served_whole_and_from_an_offset(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    for path in minicrawl.wat_files:
        name = path.relative_to(minicrawl.folder).as_posix()
        assert get(miniweb, "127.0.0.1", f"/{name}").data == path.read_bytes()
    rest = urllib3.request("GET", f"{miniweb.url}/collinfo.json", headers={"Range": "bytes=10-"})
    assert rest.status == 206
    assert rest.data == (minicrawl.folder / "collinfo.json").read_bytes()[10:]


@pytest.mark.parametrize(
    "target",
    ["/", "/../../etc/passwd", "/%2e%2e/x", f"/crawl-data/{CRAWL}/../../catalogue.json", "/images"],
)
def test_nothing_else_of_the_folder_is_served(miniweb: MiniWeb, target: str) -> None:
    with raw(miniweb, "127.0.0.1", target, timeout=LONGEST_S) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 404 ")


def test_hopeless_requests_are_refused_and_harm_nobody(miniweb: MiniWeb) -> None:
    for nonsense in (b"hello\r\n\r\n", b"GET / FTP/3\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", miniweb.port), timeout=LONGEST_S) as connection:
            connection.sendall(nonsense)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")
    with socket.create_connection(("127.0.0.1", miniweb.port), timeout=LONGEST_S) as connection:
        connection.sendall(b"A" * 40_000)
        with contextlib.suppress(ConnectionResetError):  # what it has not read turns its close into a reset
            assert connection.recv(1_000)[:13] in (b"", b"HTTP/1.1 400 ")
    assert urllib3.request("GET", f"{miniweb.url}/collinfo.json").status == 200


def test_connections_are_kept_open(miniweb: MiniWeb) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", miniweb.port, timeout=LONGEST_S)
    for _ in range(3):
        connection.request("GET", "/collinfo.json")
        used = connection.sock
        assert connection.getresponse().read()
        assert connection.sock is used
    connection.close()


def test_shutdown_ends_silent_and_endless_connections_at_once(minicrawl: MiniCrawl) -> None:
    with MiniWeb(minicrawl) as web:
        open_connections = []
        for behaviour in (Behaviour.SILENT, Behaviour.ENDLESS, Behaviour.SLOW):
            host, path, _ = places(minicrawl, behaviour)[0]
            open_connections.append(raw(web, host, path, timeout=LONGEST_S))
        while web.requests < 3:
            time.sleep(0.01)
    assert not web._thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port), timeout=LONGEST_S)
    for connection in open_connections:
        connection.close()


def test_a_port_in_use_is_a_clear_error(minicrawl: MiniCrawl, miniweb: MiniWeb) -> None:
    with pytest.raises(DemoError, match=rf"port {miniweb.port}: .*in use"), MiniWeb(minicrawl, miniweb.port):
        pass


def test_the_outcomes_cover_every_status_a_server_can_cause(minicrawl: MiniCrawl) -> None:
    ours = {DownloadStatus.DECODE_TIMEOUT, DownloadStatus.DECODER_CRASHED, DownloadStatus.BLOCKED_HASH}
    unreached = {
        DownloadStatus.CONNECT_TIMEOUT,  # loopback always answers a connect
        DownloadStatus.RESOLVER_FAILED,
        DownloadStatus.ROBOTS_UNREACHABLE,  # every robots.txt is answered
        DownloadStatus.TOO_FEW_PIXELS,  # settings that are off
        DownloadStatus.ASPECT_RATIO,
        DownloadStatus.SIDE_TOO_LONG,
        DownloadStatus.TOO_MANY_SCANS,
        DownloadStatus.REFUSED_BY_RULE,
        DownloadStatus.INTERNAL_ERROR,
    }
    assert set(minicrawl.expected.values()) == set(DownloadStatus) - ours - unreached
    slow = sum(status is DownloadStatus.TIMEOUT for status in minicrawl.expected.values())
    assert slow <= 12


def test_the_command_prints_the_settings_and_stops_on_a_signal(minicrawl: MiniCrawl) -> None:
    command = [sys.executable, "-m", "laion_etl.minicrawl", str(minicrawl.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        names = [line.partition("=")[0].removeprefix("export ") for line in lines[:3]]
        assert names == list(minicrawl.environment(0))
        address = lines[0].partition("=")[2].strip()
        assert urllib3.request("GET", f"{address}/collinfo.json").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()
