"""Certificates, good and bad, over real TLS."""

import datetime
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from laion_etl.core.funnel import DownloadStatus as S
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
        key: ec.EllipticCurvePublicKey,
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


@contextmanager
def secure_site(authority: Authority, folder: Path, host: str, days: int = 2) -> Iterator[Site]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
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
    with site(context) as running:
        yield running


def fetch(running: Site, **changes: bool) -> S | bytes:
    url = "https://a.secure.example/1.jpg"
    connect_to = (f"*.secure.example=127.0.0.1:{running.port}",)
    return fetch_all([url], DownloadSettings(connect_to=connect_to, tls_timeout_s=3, **changes))[url]


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
