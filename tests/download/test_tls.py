"""Certificates, good and bad, over real TLS."""

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.client import Client
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import parse_request_url
from laion_etl.settings import DownloadSettings
from tests.download.hostile import GOOD
from tests.download.sites import Site, site
from tests.download.test_client import fetch_all

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self.sign(self.key.public_key(), self.name, ca=True)

    def sign(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        subject: x509.Name,
        *,
        host: str = "",
        days: int = 2,
        ca: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - 5 * _DAY)
            .not_valid_after(_NOW + days * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if ca:
            usage = x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        if host:
            names = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The only authority that is trusted."""
    made = Authority()
    path = tmp_path / "authority.pem"
    path.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return made


def server_context(
    authority: Authority,
    folder: Path,
    host: str,
    days: int = 2,
    common_name: str = "server",
    rsa_key: rsa.RSAPrivateKey | None = None,
) -> ssl.SSLContext:
    key = rsa_key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = authority.sign(key.public_key(), subject, host=host, days=days)
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@contextmanager
def secure_site(authority: Authority, folder: Path, host: str, days: int = 2) -> Iterator[Site]:
    with site(server_context(authority, folder, host, days)) as running:
        yield running


def fetch(running: Site, host: str = "a.secure.example", **changes: bool) -> S | bytes:
    url = f"https://{host}/1.jpg"
    connect_to = (f"*.secure.example=127.0.0.1:{running.port}",)
    return fetch_all([url], DownloadSettings(connect_to=connect_to, tls_timeout_s=60, **changes))[url]


def test_a_good_certificate_is_accepted(authority: Authority, tmp_path: Path) -> None:
    with secure_site(authority, tmp_path, "a.secure.example") as running:
        assert fetch(running) == GOOD


@pytest.mark.parametrize(("host", "days"), [("b.secure.example", 2), ("a.secure.example", -1)])
def test_a_wrong_or_expired_certificate_is_refused_unless_settings_allow_it(
    authority: Authority, tmp_path: Path, host: str, days: int
) -> None:
    with secure_site(authority, tmp_path, host, days) as running:
        assert fetch(running) is S.TLS_FAILED
        assert fetch(running, verify_tls=False) == GOOD


@pytest.mark.usefixtures("authority")
def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    with secure_site(Authority(), tmp_path, "a.secure.example") as running:
        assert fetch(running) is S.TLS_FAILED
        assert running.requests == []


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("my_blog.secure.example", "*.secure.example"),
        ("_a.secure.example", "*.secure.example"),
        ("my_blog.secure.example", "my_blog.secure.example"),
        ("MY_Blog.secure.example", "*.Secure.example"),
        ("a.b_c.secure.example", "*.b_c.secure.example"),
        ("my_blog.secure.example.", "*.secure.example"),
        ("a.b-.secure.example", "*.b-.secure.example"),
        ("a.-b.secure.example", "*.-b.secure.example"),
        ("my-.secure.example", "*.secure.example"),
        ("b\u00fccher.secure.example", "*.secure.example"),
        ("a.secure.example.", "a.secure.example"),
        ("a.secure.example.", "*.secure.example"),
    ],
)
def test_names_that_browsers_accept(authority: Authority, tmp_path: Path, host: str, named: str) -> None:
    with secure_site(authority, tmp_path, named) as running:
        assert fetch(running, host) == GOOD


@pytest.mark.parametrize(
    ("host", "named", "days"),
    [
        ("my_blog.secure.example", "*.other.example", 2),
        ("my_blog.secure.example", "*.example", 2),
        ("my_blog.secure.example", "secure.example", 2),
        ("my_blog.secure.example", "your_blog.secure.example", 2),
        ("a.my_blog.secure.example", "*.secure.example", 2),
        ("my_blog.secure.example", "my*.secure.example", 2),
        ("my_blog.secure.example", "*", 2),
        ("a.b-.secure.example", "*.secure.example", 2),
        ("my_blog.secure.example", "*.secure.example", -1),
        ("a.secure.example.", "b.secure.example", 2),
    ],
)
def test_other_names_are_refused(
    authority: Authority, tmp_path: Path, host: str, named: str, days: int
) -> None:
    with secure_site(authority, tmp_path, named, days) as running:
        assert fetch(running, host) is S.TLS_FAILED
        assert running.requests == []


@pytest.mark.parametrize("host", ["a.secure.example", "my_blog.secure.example"])
def test_a_name_that_only_the_subject_has_is_refused(authority: Authority, tmp_path: Path, host: str) -> None:
    """RFC 9525, 6.3; browsers refuse it, curl with OpenSSL does not."""
    with site(server_context(authority, tmp_path, "", common_name=host)) as running:
        assert fetch(running, host) is S.TLS_FAILED
        assert fetch(running, host, verify_tls=False) == GOOD


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", ["blog.secure.example", "my_blog.secure.example"])
def test_the_session_of_a_closed_connection_is_resumed(
    authority: Authority, tmp_path: Path, host: str, version: ssl.TLSVersion
) -> None:
    """Names are compared again, with the certificate of the first connection."""

    async def main(port: int) -> list[bytes]:
        connect_to, bodies = (f"*.secure.example=127.0.0.1:{port}",), list[bytes]()
        client = Client(DownloadSettings(connect_to=connect_to, robots_txt=False, tdmrep=False))
        for _ in range(2):
            with await client.fetch(parse_request_url(f"https://{host}/1.jpg")) as body:
                bodies.append(body.data())
            await client.pool.close_idle(0)
        return bodies

    context = server_context(authority, tmp_path, "*.secure.example")
    context.maximum_version = version
    with site(context) as running:
        assert trio.run(main, running.port) == [GOOD, GOOD]
        assert len({request.connection for request in running.requests}) == 2
    assert context.session_stats()["hits"] == 1


@pytest.mark.usefixtures("authority")
def test_a_name_with_an_underscore_does_not_excuse_an_unknown_authority(tmp_path: Path) -> None:
    with secure_site(Authority(), tmp_path, "*.secure.example") as running:
        assert fetch(running, "my_blog.secure.example") is S.TLS_FAILED


def test_the_server_is_asked_for_its_name_without_the_final_dot(authority: Authority, tmp_path: Path) -> None:
    context, asked = server_context(authority, tmp_path, "a.secure.example"), list[str | None]()
    context.sni_callback = lambda _, name, __: asked.append(name)
    with site(context) as running:
        assert fetch(running, "a.secure.example.") == GOOD
        assert {request.host for request in running.requests} == {"a.secure.example."}
    assert set(asked) == {"a.secure.example"}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA"])
def test_a_server_with_old_ciphers_is_accepted_as_in_browsers(
    authority: Authority, tmp_path: Path, rsa_key: rsa.RSAPrivateKey, cipher: str
) -> None:
    context = server_context(authority, tmp_path, "a.secure.example", rsa_key=rsa_key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with site(context) as running:
        assert fetch(running) == GOOD


def test_no_ciphers_are_offered_that_old_servers_use_with_weak_parameters() -> None:
    received = list[bytes]()
    with hello_server(b"", received) as port:
        failure("https://a.secure.example/", port)
    offered = suites(received[0])
    assert 0x002F in offered  # AES128-SHA
    assert offered.isdisjoint({0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F})  # DHE-RSA
    assert offered.isdisjoint({0x0005, 0x000A, 0x003B, 0xC012})  # RC4, 3DES, no encryption


def suites(client_hello: bytes) -> set[int]:
    """Returns the ciphers of a ClientHello (RFC 5246, 7.4.1.2), behind a random and a session id."""
    place = 44 + client_hello[43]
    end = place + 2 + int.from_bytes(client_hello[place : place + 2])
    return {int.from_bytes(client_hello[at : at + 2]) for at in range(place + 2, end, 2)}


def test_a_server_that_does_not_know_secure_renegotiation_is_not_refused_for_it() -> None:
    """RFC 5746, 4.1; what ends the handshake here is the message behind the ServerHello, out of turn."""
    hello = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x9c" + b"\x00"  # no extensions
    done = b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"
    with hello_server(b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26" + hello + done) as port:
        broken = failed("https://a.secure.example/", port).__cause__
    cause = broken.__cause__ if broken is not None else None
    assert isinstance(cause, ssl.SSLError)
    assert cause.reason == "UNEXPECTED_MESSAGE"


def test_a_server_that_speaks_no_http_1_is_counted_as_such() -> None:
    """So the hosts that are lost without HTTP/2 are known: docs/decisions/0014-no-http-2.md."""
    alert = b"\x15\x03\x03\x00\x02\x02\x78"  # fatal, no_application_protocol (RFC 7301, 3.2)
    for reply, scheme, message in (
        (alert, "https", "no HTTP/1.1"),
        (b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), "http", "HTTP/2"),
    ):
        with hello_server(reply) as port:
            assert failure(f"{scheme}://a.secure.example/", port) == message


@pytest.mark.parametrize(
    "reply",
    [
        b"",  # the end of the connection
        b"\x15\x03\x03\x00\x02\x02\x70",  # fatal, unrecognized_name (RFC 6066, 3)
        b"\x15\x03\x03\x00\x02\x02\x28",  # fatal, handshake_failure
        b"HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\n\r\n",
        bytes(100),
    ],
)
def test_what_does_not_answer_the_handshake_is_a_failed_one(reply: bytes) -> None:
    with hello_server(reply) as port:
        assert failure("https://a.secure.example/", port) == "handshake"


@contextmanager
def hello_server(reply: bytes, received: list[bytes] | None = None) -> Iterator[int]:
    """Gives one reply to whatever it gets first, which it takes down."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            first = self.request.recv(65_536)
            if received is not None:
                received.append(first)
            self.request.sendall(reply)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def failure(url: str, port: int) -> str:
    return failed(url, port).message


def failed(url: str, port: int) -> LinkFailed:
    settings = DownloadSettings(
        connect_to=(f"*.secure.example=127.0.0.1:{port}",), robots_txt=False, tdmrep=False
    )

    async def main() -> LinkFailed:
        with pytest.raises(LinkFailed) as caught:
            await Client(settings).fetch(parse_request_url(url))
        return caught.value

    return trio.run(main)
