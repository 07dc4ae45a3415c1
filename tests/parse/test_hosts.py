import pytest
import tldextract

from laion_etl.core.funnel import ParseReason
from laion_etl.download.ssrf import AddressPolicy
from laion_etl.urls.hosts import host_is_public, tracker_paths
from laion_etl.urls.public_suffix import registered_domain
from tests.parse.outcomes import link_outcome, url_outcome


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "a.example",
        "8.8.8.8",
        "[2606:4700::1111]",
        "xn--bcher-kva.ch",
        "www.arpa.com",
        "[64:ff9b::808:808]",
        "onion.example",
        "www.domain.com",
    ],
)
def test_public_hosts(host: str) -> None:
    assert host_is_public(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "wiki", "wiki.", "a.localhost", "nas.local", "x.internal", "x.home.arpa", "home.arpa",
    "pc.lan", "10.0.0.1",
     "127.0.0.1", "100.64.0.1", "169.254.169.254", "192.0.2.1", "198.18.0.1", "224.0.0.1", "0.0.0.0", "[::1]",
     "[::]", "[fd00::8]", "[fe80::1]", "[::ffff:a00:8]", "[2001:db8::1]", "[ff02::1]", "[64:ff9b::c0a8:1]",
     "[64:ff9b:1::8]", "[2002:c0a8:101::]", "[fec0::8]", "[3fff:8::1]", "[5f00::8]", "[::192.168.0.1]",
     "[2001::1]", "192.88.99.7", "192.0.0.10", "x.onion", "x.alt", "nas.localdomain", "pc.domain"],
)  # fmt: skip
def test_hosts_that_do_not_exist_or_are_private(host: str) -> None:
    assert not host_is_public(host)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("img.shop.co.uk", "shop.co.uk"),
        ("a.b.example.com", "example.com"),
        ("co.uk", "co.uk"),
        ("a.b.kobe.jp", "a.b.kobe.jp"),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("x.city.kobe.jp", "city.kobe.jp"),
        ("a.b.xn--p1ai", "b.xn--p1ai"),
        ("a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("a.b.unknown", "a.b.unknown"),
    ],
)
def test_the_registered_domain(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


def test_registered_domains_are_those_of_the_public_suffix_list() -> None:
    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    rules = [rule.lstrip("!").replace("*", "x") for rule in extract.tlds]
    rules += [rule.encode("idna").decode() for rule in rules if not rule.isascii()]
    hosts = [f"{labels}{rule}" for rule in rules for labels in ("", "a.", "b.a.", "c.b.a.")]
    wrong = [h for h in hosts if registered_domain(h) != (extract(h).top_domain_under_public_suffix or h)]
    assert len(hosts) > 20_000
    assert wrong == []


def test_trackers_are_known_by_name_and_narrowed_by_path() -> None:
    assert tracker_paths("pixel.quantserve.com", "quantserve.com") == ("",)
    assert tracker_paths("www.facebook.com", "facebook.com") == ("/tr",)
    assert tracker_paths("www.example.com", "example.com") == ()


@pytest.mark.parametrize(
    "host",
    ["foo.09..", "192.168.1..", "1.2.3.4..", "a..com", "com..", ".", "..", "[", "[::1", "[]", "999.1.1.1"],
)
def test_a_host_that_cannot_be_looked_up_is_not_public(host: str) -> None:
    assert not host_is_public(host)


@pytest.mark.parametrize("host", ["example.com.", "8.8.8.8.", "foo.09.example."])
def test_one_dot_at_the_end_changes_nothing(host: str) -> None:
    assert host_is_public(host)


@pytest.mark.parametrize(
    "host", ["foo.09..", "192.168.1..", "a..com", "a..b.com", ".a.b.com", "foo.0x7f..", "1.."]
)
@pytest.mark.parametrize("by_base", [True, False])
def test_such_a_host_costs_its_link_only(host: str, by_base: bool) -> None:
    page = "https://page.example.org/"
    found = (
        url_outcome("/x.jpg", page, f"http://{host}/")
        if by_base
        else url_outcome(f"http://{host}/x.jpg", page)
    )
    assert found is ParseReason.HOST_NOT_PUBLIC
    assert url_outcome("https://example.org/x.jpg", page, f"http://{host}/") == "https://example.org/x.jpg"


def test_a_host_with_a_dot_at_the_end_has_the_domain_and_the_tracker_of_the_name() -> None:
    page = "https://page.example.org/"
    found = link_outcome("https://img.shop.co.uk./x.jpg", "A red car on a green field", page)
    assert isinstance(found, dict)
    assert found["domain"] == "shop.co.uk"
    assert url_outcome("https://pixel.quantserve.com./x.jpg", page) is ParseReason.TRACKER


@pytest.mark.parametrize(
    ("url", "is_tracker"),
    [
        ("https://www.facebook.com/tr?id=1", True),
        ("https://www.facebook.com/tr/?id=1", True),
        ("https://www.facebook.com/./tr", True),
        ("https://m.facebook.com./tr?id=1", True),
        ("https://www.facebook.com/travel.jpg", False),
        ("https://www.facebook.com/tree/a.jpg", False),
        ("https://t.co/i/adsct?x", True),
        ("https://t.co/iGkx81", False),
        ("https://www.google.com/ads/ga-audiences?t=sr", True),
        ("https://www.google.com/adsense.png", False),
        ("https://dc.ads.linkedin.com/collect/?pid=1", True),
        ("https://tr.snapchat.com/p", True),
        ("https://notgoogle-analytics.com/a.png", False),
        ("https://google-analytics.com.example/a.png", False),
        ("https://shop.example/1x1.PNG?x=1", True),
        ("https://shop.example/tracking-pixel.png", True),
        ("https://shop.example/pixel-art.png", False),
        ("https://shop.example/stats/matomo.php?idsite=1&rec=1", True),
        ("https://shop.example/matomo.phpx", False),
    ],
)
def test_trackers(url: str, is_tracker: bool) -> None:
    found = link_outcome(url, "A red car on a green field", "https://page.example.org/")
    assert (found is ParseReason.TRACKER) == is_tracker


@pytest.mark.parametrize(
    ("host", "is_public"),
    [
        ("nas.home.arpa", False),
        ("pc.nas.home.arpa", False),
        ("a.pc.nas.home.arpa", False),
        ("nas.home.arpa.", False),
        ("home.arpa", False),
        ("www.home.arpa.example", True),
        ("nas.home.example", True),
        ("home.co.uk", True),
        ("img.home.co.uk", True),
        ("arpa.home.pl", True),
        ("www.in-addr.arpa", True),
        ("shop.com.au", True),
        ("nas.lan", False),
        ("shop.co.internal", False),
    ],
)
def test_a_host_is_judged_alike_alone_and_by_the_endings_of_a_column(host: str, is_public: bool) -> None:
    assert host_is_public(host) is is_public
    found = url_outcome(f"https://{host}/x.jpg", "https://page.example.org/")
    assert found == (f"https://{host}/x.jpg" if is_public else ParseReason.HOST_NOT_PUBLIC)


def test_parse_and_downloader_refuse_the_same_addresses() -> None:
    addresses = [f"{first}.{second}.99.1" for first in range(256) for second in (0, 64, 88, 168, 254)]
    policy = AddressPolicy()
    assert [host_is_public(address) for address in addresses] == [policy.allows(x) for x in addresses]
    blocks = [f"{first:x}::1" for first in range(0, 0x10000, 16)]
    assert [host_is_public(f"[{block}]") for block in blocks] == [policy.allows(x) for x in blocks]
