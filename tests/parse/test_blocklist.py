"""Blocklists: what an entry of each kind blocks, which lines are refused, and when a list is read again."""

import gzip
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.blocklists import Blocklists, load_blocklists, syntax
from laion_etl.blocklists.hashes import contains, drop_repeats, siphash
from laion_etl.blocklists.patterns import UrlPatterns
from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.core.schemas import pair_id
from laion_etl.io.storage import LocalStore, Store
from laion_etl.parse.stage import parse_partition
from laion_etl.settings import CoreSettings, ParseSettings, Settings
from tests.parse.blocklist_loader import load
from tests.parse.wat_files import image, page_record, write_wat

KINDS = ("domains", "urls", "url_patterns", "pairs")
AN_ID = "00112233445566778899aabbccddeeff"


def loaded(folder: Path, **lists: str | bytes) -> Blocklists:
    """The blocklists of texts, one per kind, in files of a folder."""
    folder.mkdir(exist_ok=True)
    for kind, text in lists.items():
        (folder / f"{kind}.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_blocklists(settings_of(**{kind: str(folder / f"{kind}.txt") for kind in lists}), folder)


def settings_of(**sources: str) -> ParseSettings:
    return ParseSettings(**{f"blocked_{kind}": (source,) for kind, source in sources.items()})


def is_blocked(lists: Blocklists, url: str) -> bool:
    return bool(lists.urls_blocked(pa.array([url]))[0])


def compiled_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "blocklists").glob("*.u64"))


# What entries block.


@pytest.mark.parametrize(
    ("entry", "blocked", "free"),
    [
        (
            "example.com",
            ["example.com", "www.example.com", "a.b.example.com", "example.com."],
            ["notexample.com", "example.com.org", "com", "example.co", "xample.com"],
        ),
        ("*.example.com", ["example.com", "www.example.com"], ["aexample.com"]),
        (".example.com", ["example.com", "www.example.com"], ["aexample.com"]),
        ("EXAMPLE.com.", ["example.com", "www.example.com"], ["com"]),
        ("example.com # asked on 2026-01-02", ["example.com"], []),
        ("example.com#asked", ["example.com"], []),
        ("  example.com\t", ["example.com"], []),
        ("img.example.co.uk", ["img.example.co.uk", "x.img.example.co.uk"], ["example.co.uk", "co.uk"]),
        ("zip", ["a.zip", "b.a.zip"], ["zip.com", "azip"]),
        ("bücher.example", ["xn--bcher-kva.example", "a.xn--bcher-kva.example"], ["bucher.example"]),
        ("BÜCHER.example", ["xn--bcher-kva.example"], []),
        ("xn--bcher-kva.example", ["xn--bcher-kva.example"], []),
        ("例え。テスト", ["xn--r8jz45g.xn--zckzah"], []),
        ("under_score.example", ["under_score.example"], []),
        ("0.0.0.0 example.com", ["example.com", "www.example.com"], ["0.0.0.0"]),
        ("127.0.0.1\texample.com  example.org # both", ["example.com", "a.example.org"], ["127.0.0.1"]),
        ("::1 example.com", ["example.com"], ["[::1]"]),
        ("fe80::1%lo0 localhost", ["localhost"], []),
        ("0.0.0.0 0.0.0.0", ["0.0.0.0"], ["1.0.0.0.0"]),
        ("192.0.2.1", ["192.0.2.1"], ["1.192.0.2.1", "192.0.2.10", "2.1", "192.0.2.2"]),
        ("0xC0.0.2.1", ["192.0.2.1"], []),
        ("2001:DB8::1", ["[2001:db8::1]"], ["[2001:db8::2]"]),
        ("[2001:db8:0:0::1]", ["[2001:db8::1]"], []),
    ],
)
def test_a_domain_blocks_itself_and_all_names_under_it(
    entry: str, blocked: list[str], free: list[str], tmp_path: Path
) -> None:
    lists = loaded(tmp_path, domains=f"# a list\n\n{entry}\n")
    assert [host for host in blocked if not lists.domain_blocked(host)] == []
    assert [host for host in [*free, "other.net"] if lists.domain_blocked(host)] == []


def test_a_listed_number_does_not_block_addresses_that_end_in_it(tmp_path: Path) -> None:
    """By the URL standard the host `1` is the address 0.0.0.1."""
    lists = loaded(tmp_path, domains="1\n")
    assert lists.domain_blocked("0.0.0.1")
    assert not lists.domain_blocked("10.0.0.1")


@pytest.mark.parametrize(
    ("entry", "blocked", "free"),
    [
        (
            "example.com/users/",
            [
                "http://example.com/users/",
                "https://example.com/users/a.jpg",
                "https://example.com/users/a/b/c.jpg?x=/y",
                "https://img.www.example.com/users/a.jpg",
                "https://example.com:8443/users/a.jpg",
            ],
            [
                "https://example.com/users",
                "https://example.com/users?x/",
                "https://example.com/a/users/b.jpg",
                "https://example.com/?/users/",
                "https://example.com/Users/a.jpg",
                "https://notexample.com/users/a.jpg",
                "https://example.org/users/a.jpg",
            ],
        ),
        (
            "example.com/a.jpg",
            [
                "http://example.com/a.jpg",
                "https://example.com/a.jpg?",
                "https://example.com/a.jpg?w=9",
                "https://example.com./a.jpg",
            ],
            [
                "https://www.example.com/a.jpg",
                "https://example.com/a.jpg/",
                "https://example.com/a.jpg/b",
                "https://example.com/b/a.jpg",
                "https://example.com/a.jp",
            ],
        ),
        (
            "https://example.com/a.jpg?w=9",
            ["http://example.com/a.jpg?w=9", "https://example.com/a.jpg?w=9"],
            [
                "https://example.com/a.jpg",
                "https://example.com/a.jpg?w=90",
                "https://example.com/a.jpg?w=9/",
                "https://www.example.com/a.jpg?w=9",
            ],
        ),
        (
            "example.com/a/?id=1",
            ["https://example.com/a/?id=1"],
            ["https://example.com/a/", "https://example.com/a/b?id=1", "https://example.com/a/?id=1/"],
        ),
        ("example.com/?", ["https://example.com/?"], ["https://example.com/", "https://example.com/?a"]),
        ("example.com", ["https://example.com/a.jpg", "https://a.example.com/"], ["https://aexample.com/"]),
        ("HTTP://Example.COM/A", ["https://example.com/A"], ["https://example.com/a"]),
        ("example.com:8080/a", ["https://example.com/a", "http://example.com:81/a"], []),
        ("example.com/a#part", ["https://example.com/a"], ["https://example.com/a%23part"]),
        (
            "example.com/%7euser/ä b",
            ["https://example.com/~user/%C3%A4%20b", "https://example.com/%7Euser/%c3%a4%20b"],
            ["https://example.com/%7Euser/%c3%a4%20b%"],  # a stray percent sign: only its server knows
        ),
        ("example.com/users/", ["https://example.com/%75sers/1.jpg"], ["https://example.com/%55sers/1.jpg"]),
        ("example.com/x/../a?u=http://b/", ["https://example.com/a?u=http://b/"], []),
        ("bücher.example/a", ["https://xn--bcher-kva.example/a"], []),
        ("192.0.2.1/a/", ["http://192.0.2.1/a/b"], ["http://1.192.0.2.1/a/b"]),
        ("[2001:db8::1]:80/a", ["http://[2001:db8::1]/a"], ["http://[2001:db8::2]/a"]),
        ("com/a/", ["https://example.com/a/b"], ["https://example.com/b"]),
    ],
)
def test_an_expression_blocks_a_folder_a_path_or_one_url(
    entry: str, blocked: list[str], free: list[str], tmp_path: Path
) -> None:
    lists = loaded(tmp_path, urls=f"# a list\n\n{entry}\n")
    assert lists.urls_blocked(pa.array([*blocked, *free])).tolist() == [True] * len(blocked) + [False] * len(
        free
    )


@pytest.mark.parametrize(
    ("pattern", "blocked", "free"),
    [
        ("^https?://[^/]*ads", "https://img.ads.example/a", "https://example.com/ads"),
        ("(?i)BANNER", "https://example.com/Banner.jpg", "https://example.com/ban"),
        (r"\.php\?", "https://example.com/a.php?x", "https://example.com/a.php"),
        ("  spaces-are-cut ", "https://example.com/spaces-are-cut", "https://example.com/spaces"),
        (r"\Qa|b", "https://example.com/a|b", "https://example.com/a"),
        (r"\#x", "https://example.com/#x", "https://example.com/x"),
    ],
)
def test_a_pattern_blocks_urls_with_a_match(pattern: str, blocked: str, free: str, tmp_path: Path) -> None:
    lists = loaded(tmp_path, url_patterns=f"# a list\n\n{pattern}\n")
    assert lists.urls_blocked(pa.array([blocked, free])).tolist() == [True, False]


def test_many_patterns_answer_as_each_alone() -> None:
    patterns = [f"/{n}[a-c]+/x" for n in range(150)]
    patterns += [r"\Qq(1", r"m\Qi.d\E", "(?P<n>one)y", "(?P<n>two)y", "(?i)LOUD", "quiet", "(?:z{900}){1}w"]
    urls = [f"https://example.com/{n}ab/x" for n in range(0, 300, 7)]
    urls += [
        f"https://example.com/{word}"
        for word in ("q(1", "q1", "mi.d", "mixd", "oney", "twoy", "loud", "QUIET")
    ]
    found = UrlPatterns(patterns).matches(pa.array(urls))
    alone = [any(UrlPatterns([pattern]).matches(pa.array([url]))[0] for pattern in patterns) for url in urls]
    assert found.tolist() == alone
    assert True in alone
    assert False in alone


def test_a_pair_id_blocks_its_pair(tmp_path: Path) -> None:
    listed = [hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest() for n in range(6)]
    listed[1] = listed[1].upper()
    text = "\n".join([f"{listed[0]}  # asked on 2026-01-02", *listed[1:4], "# none", "", f" {listed[4]}\r"])
    lists = loaded(tmp_path, pairs=text)
    values = np.array([int(digest[:16], 16) for digest in listed], np.uint64)
    assert lists.pairs_blocked(values).tolist() == [True] * 5 + [False]
    assert lists.pairs_blocked(values[:0]).tolist() == []


def test_expressions_and_patterns_answer_together_for_a_slice_of_a_column(tmp_path: Path) -> None:
    lists = loaded(tmp_path, urls="a.example/\n", url_patterns="banner\n")
    urls = pa.array(
        [f"https://{name}/x" for name in ("a.example", "b.example", "banner.example", "a.example")]
    )
    assert lists.urls_blocked(urls.slice(1)).tolist() == [False, True, True]
    assert lists.urls_blocked(urls.slice(4)).tolist() == []


def test_several_lists_of_a_kind_block_together(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"site{number}.example\n")
    sources = tuple(str(tmp_path / f"{number}.txt") for number in range(3))
    lists = load_blocklists(ParseSettings(blocked_domains=sources, blocked_urls=sources), tmp_path)
    assert [lists.domain_blocked(f"site{number}.example") for number in range(4)] == [True] * 3 + [False]
    urls = pa.array([f"https://site{number}.example/" for number in range(4)])
    assert lists.urls_blocked(urls).tolist() == [True] * 3 + [False]


def test_empty_lists_do_nothing(tmp_path: Path) -> None:
    for lists in (
        load_blocklists(ParseSettings(), tmp_path),
        loaded(tmp_path, **dict.fromkeys(KINDS, "# \n")),
    ):
        assert not (lists.blocks_domains or lists.blocks_urls or lists.blocks_pairs)
        assert not lists.domain_blocked("example.com")
        assert lists.urls_blocked(pa.array(["https://example.com/"])).tolist() == [False]
        assert lists.pairs_blocked(np.zeros(2, np.uint64)).tolist() == [False, False]
    assert load_blocklists(ParseSettings(), tmp_path / "other").fingerprint == ""
    assert not (tmp_path / "other").exists()


# Lines and files that are refused.


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("domains", "http://example.com"),
        ("domains", "example.com/path"),
        ("domains", "example.com:8080"),
        ("domains", "user@example.com"),
        ("domains", "exa mple.com"),
        ("domains", "a.*.com"),
        ("domains", "*"),
        ("domains", "[::1"),
        ("domains", "1.2.3.4.5"),
        ("domains", "xn--a-ä.com"),
        ("domains", "0.0.0.0 example.com/x"),
        ("urls", "/users/"),
        ("urls", "?x"),
        ("urls", "ftp://example.com/a"),
        ("urls", "javascript://example.com/a"),
        ("urls", "https://"),
        ("urls", "http:///a"),
        ("urls", "user:secret@example.com/a"),
        ("urls", "mailto:a@example.com"),
        ("urls", "exa mple.com/a"),
        ("urls", "[::1/a"),
        ("url_patterns", "(a"),
        ("url_patterns", "a(?=b)"),
        ("url_patterns", "a)|(b"),
        ("pairs", AN_ID[:-1]),
        ("pairs", AN_ID + "0"),
        ("pairs", AN_ID[:-1] + "g"),
        ("pairs", AN_ID[:-1] + "\x10"),
        ("pairs", f"{AN_ID} {AN_ID}"),
    ],
)
def test_an_invalid_line_is_named_with_its_number(kind: str, line: str, tmp_path: Path) -> None:
    good = {"pairs": AN_ID}.get(kind, "example.net")
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, **{kind: f"# a list\n{good}\n\n{line}\n{line}\n{good}\n"})
    assert str(caught.value).startswith(f"cannot read {tmp_path / kind}.txt line 4: {line.strip()!r} is not ")
    assert str(caught.value).endswith("; correct or remove the line")
    assert compiled_files(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_text_is_refused(kind: str, tmp_path: Path) -> None:
    good = {"pairs": AN_ID}.get(kind, "example.net").encode()
    with pytest.raises(InputError, match=r"txt line 3: it is not UTF-8; convert the file"):
        loaded(tmp_path, **{kind: good + b"\n\n\xff\xfe\n"})
    with pytest.raises(InputError, match=r"txt: a line is over 64 KiB long"):
        loaded(tmp_path, **{kind: b"a" * 70_000 + b"\n"})
    with pytest.raises(InputError, match=r"txt: a line is over 64 KiB long"):
        loaded(tmp_path, **{kind: b"#" * 5_000_000})
    with pytest.raises(InputError, match="damaged gzip"):
        loaded(tmp_path, **{kind: gzip.compress(good * 1000)[:-20]})
    with pytest.raises(MissingInputError, match=r"none\.txt: no such file"):
        load_blocklists(settings_of(**{kind: str(tmp_path / "none.txt")}), tmp_path)


# Where lists come from.


def test_gzip_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path) -> None:
    text = b"example.com\nexample.org\n0.0.0.0 example.net\n"
    texts = [text, text[:-1], text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf# x\n" + text, gzip.compress(text)]
    texts.append(gzip.compress(text[:12]) + gzip.compress(text[12:]))
    for number, data in enumerate(texts):
        lists = loaded(tmp_path / str(number), domains=data)
        blocked = [lists.domain_blocked(f"www.example.{ending}") for ending in ("com", "org", "net", "eu")]
        assert blocked == [True, True, True, False]


def test_blocks_of_any_size_give_the_same_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"site{n}.example" for n in range(50)]
    text = "\n".join(["# head", *names, "bücher.example", "*.wild.example"]) + "\n"
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(syntax, "_BLOCK_BYTES", size)
        lists = loaded(tmp_path / str(size), domains=text, urls=text.replace("*.", ""))
        assert all(lists.domain_blocked(name) for name in [*names, "xn--bcher-kva.example", "wild.example"])
        assert all(is_blocked(lists, f"https://{name}/a") for name in names)
        with pytest.raises(InputError, match="line 54: 'a/b' is not a domain"):
            loaded(tmp_path / str(size), domains=text + "a/b\n")


def test_a_list_on_s3_is_read_again_when_it_changes(s3_store: Store, tmp_path: Path) -> None:
    settings = settings_of(domains=s3_store.uri("list.txt.gz"))
    fingerprints = set()
    for name in ("one.example", "two.example", "two.example"):
        s3_store.write("list.txt.gz", gzip.compress(f"{name}\n".encode(), mtime=0))
        lists = load_blocklists(settings, tmp_path)
        assert [lists.domain_blocked(other) for other in ("one.example", "two.example")] == [
            name == "one.example",
            name == "two.example",
        ]
        fingerprints.add(lists.fingerprint)
        assert len(compiled_files(tmp_path)) == 1  # that of the older content is gone
    assert len(fingerprints) == 2


class WebList:
    """A list on a web server: its text, its ETag, and the methods of its requests."""

    def __init__(self) -> None:
        self.text = b"one.example\n"
        self.etag = '"1"'
        self.asked: list[str] = []

    @contextmanager
    def served(self) -> Iterator[str]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page.asked.append(self.command)
                self.send_response(200)
                self.send_header("Content-Length", str(len(page.text)))
                self.send_header("ETag", page.etag)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(page.text)

            do_HEAD = do_GET  # noqa: N815 - the name the server looks for

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/list.txt"
        finally:
            server.shutdown()
            server.server_close()


def test_a_list_on_the_web_is_read_once_for_each_etag(tmp_path: Path) -> None:
    page = WebList()
    with page.served() as url:
        for _ in range(3):
            assert load_blocklists(settings_of(domains=url), tmp_path).domain_blocked("one.example")
        assert page.asked.count("GET") == 1
        page.text, page.etag = b"two.example\n", '"2"'
        lists = load_blocklists(settings_of(domains=url), tmp_path)
        assert (lists.domain_blocked("one.example"), lists.domain_blocked("two.example")) == (False, True)
        assert page.asked.count("GET") == 2


def test_a_list_on_the_web_without_a_strong_etag_is_read_each_time(tmp_path: Path) -> None:
    page = WebList()
    page.etag = 'W/"1"'
    with page.served() as url:
        for name in ("one.example", "two.example"):
            page.text = f"{name}\n".encode()
            assert load_blocklists(settings_of(domains=url), tmp_path).domain_blocked(name)
        assert page.asked.count("GET") == 2


def test_a_changed_file_is_compiled_again(tmp_path: Path) -> None:
    """Also when its size and times look the same: a file that changed so recently is not trusted."""
    path = tmp_path / "domains.txt"
    for name in ("one.example", "two.example"):
        lists = loaded(tmp_path, domains=f"{name}\n")
        os.utime(path, ns=(10**18, 10**18))
        assert lists.domain_blocked(name)
        assert len(compiled_files(tmp_path)) == 1
        assert not lists.domain_blocked({"one.example": "two.example"}.get(name, "one.example"))


def test_a_file_that_stays_the_same_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laion_etl.blocklists.compiled._SETTLED_S", -1.0)
    first = loaded(tmp_path, domains="one.example\n")
    monkeypatch.setattr("laion_etl.blocklists.compiled.open_input", None)
    again = load_blocklists(settings_of(domains=str(tmp_path / "domains.txt")), tmp_path)
    assert again.domain_blocked("one.example")
    assert again.fingerprint == first.fingerprint


def test_a_lost_or_unreadable_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laion_etl.blocklists.compiled._SETTLED_S", -1.0)
    loaded(tmp_path, domains="one.example\n")
    folder = tmp_path / "blocklists"
    for pattern, spoil in (("*.u64", Path.unlink), ("*.json", lambda path: path.write_text("{"))):
        for path in folder.glob(pattern):
            spoil(path)
        settings = settings_of(domains=str(tmp_path / "domains.txt"))
        assert load_blocklists(settings, tmp_path).domain_blocked("one.example")


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    texts = {"domains": "a.example\n", "urls": "a.example\n", "url_patterns": "a\n", "pairs": f"{AN_ID}\n"}
    known = loaded(tmp_path / "here", **texts).fingerprint
    assert loaded(tmp_path / "there", **texts).fingerprint == known
    others = [
        loaded(tmp_path / kind, **texts | {kind: text + "# x\n"}).fingerprint for kind, text in texts.items()
    ]
    swapped = loaded(tmp_path / "swapped", domains="a.example\n").fingerprint
    assert len({known, swapped, loaded(tmp_path / "urls-only", urls="a.example\n").fingerprint, *others}) == 7


def test_of_two_processes_that_start_at_once_one_compiles(tmp_path: Path) -> None:
    page = WebList()
    page.text = "".join(f"site{n}.example/\n" for n in range(20_000)).encode()
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    with page.served() as url:
        arguments = (url, str(tmp_path), start, answers)
        processes = [context.Process(target=load, args=arguments) for _ in range(2)]
        for process in processes:
            process.start()
        found = [answers.get(timeout=240) for _ in processes]
        for process in processes:
            process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    assert found == [([True, True, False], found[0][1])] * 2
    assert page.asked.count("GET") == 1
    assert sorted(path.suffix for path in (tmp_path / "blocklists").iterdir()) == [".json", ".lock", ".u64"]


# Hashes.


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "310e0edd47db6f72"),
        (1, "fd67dc93c539f874"),
        (2, "5a4fa9d909806c0d"),
        (7, "37d1018bf50002ab"),
        (8, "6224939a79f5f593"),
        (15, "e545be4961ca29a1"),
    ],
)
def test_siphash_gives_the_values_of_its_authors(length: int, expected: str) -> None:
    """Key and messages are 00 01 02 ...; expected values from the reference implementation, as bytes."""
    key = np.frombuffer(bytes(range(16)), np.uint64)
    value = siphash(np.frombuffer(bytes(range(16)), np.uint8), 0, length, key[0], key[1])
    assert int(value).to_bytes(8, "little").hex() == expected


NUMBERS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 50), st.integers(2**64 - 50, 2**64 - 1))


@given(st.lists(NUMBERS, max_size=200), st.lists(NUMBERS, max_size=20))
def test_the_search_finds_what_is_there_however_it_is_spread(values: list[int], others: list[int]) -> None:
    array = np.array(sorted(values), np.uint64)
    distinct = array[: drop_repeats(array)]
    assert distinct.tolist() == sorted(set(values))
    for value in values + others:
        assert contains(distinct, np.uint64(value)) == (value in values)


LABELS = st.sampled_from(["a", "b", "example", "com", "co", "uk", "img"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
SEGMENTS = st.sampled_from(["", "a", "b", "users", "x.jpg", "%20"])
PATHS = st.lists(SEGMENTS, max_size=4).map(lambda segments: "/" + "/".join(segments))
QUERIES = st.sampled_from(["", "", "?", "?x=1", "?/", "?a/b"])
URLS = st.builds(lambda *parts: "".join(parts), HOSTS, PATHS, QUERIES)


@given(st.lists(HOSTS, max_size=5), st.lists(HOSTS, min_size=1, max_size=20))
def test_domains_answer_as_a_set_of_names_does(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str], hosts: list[str]
) -> None:
    lists = loaded(tmp_path_factory.mktemp("lists"), domains="\n".join(listed))
    for host in hosts:
        assert lists.domain_blocked(host) == any(f".{host}".endswith(f".{name}") for name in listed)


@given(st.lists(URLS, max_size=6), st.lists(URLS, min_size=1, max_size=20))
def test_expressions_answer_as_their_definition_does(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str], urls: list[str]
) -> None:
    lists = loaded(tmp_path_factory.mktemp("lists"), urls="\n".join(listed))
    found = lists.urls_blocked(pa.array([f"https://{url}" for url in urls])).tolist()
    assert found == [any(covers(entry, url) for entry in listed) for url in urls]


def covers(entry: str, url: str) -> bool:
    """The definition, on strings."""
    host, path = entry.split("/", 1)
    parts = urlsplit(f"https://{url}")
    if "?" in path:
        return entry == url
    if not path or path.endswith("/"):
        return f".{parts.netloc}".endswith(f".{host}") and parts.path.startswith(f"/{path}")
    return (parts.netloc, parts.path) == (host, f"/{path}")


IDS = st.binary(min_size=16, max_size=16)


@given(st.lists(IDS, max_size=10), st.lists(IDS, max_size=10))
def test_pairs_answer_as_a_set_of_ids_does(
    tmp_path_factory: pytest.TempPathFactory, listed: list[bytes], others: list[bytes]
) -> None:
    lists = loaded(tmp_path_factory.mktemp("lists"), pairs="\n".join(one.hex() for one in listed))
    ids = listed + others
    values = np.array([int.from_bytes(one[:8], "big") for one in ids], np.uint64)
    halves = {one[:8] for one in listed}
    assert lists.pairs_blocked(values).tolist() == [one[:8] in halves for one in ids]


# In the parse stage.


def test_blocked_links_are_counted_and_not_stored(tmp_path: Path) -> None:
    gone = {
        "blocked_domain": ("https://img.blocked.example/a.jpg", "A picture of a blocked domain"),
        "blocked_url": ("https://www.example.org/private/a.jpg", "A picture in a blocked folder"),
        "blocked_pair": ("https://www.example.org/pair.jpg", "The text of a blocked pair"),
    }
    pattern = ("https://www.example.org/banners/a.jpg", "A picture that a pattern blocks")
    stays = [
        ("https://www.example.org/a.jpg", "A picture that stays"),
        ("https://www.example.org/pair.jpg", "Another text of the same picture"),
    ]
    pairs = [*gone.values(), pattern, *stays]
    wat = write_wat(
        tmp_path / "a.wat.gz", [page_record("https://p.example/", [image(*pair) for pair in pairs])]
    )
    (tmp_path / "domains").write_text("blocked.example\n")
    (tmp_path / "urls").write_text("www.example.org/private/\n")
    (tmp_path / "url_patterns").write_text("/banners?/\n")
    (tmp_path / "pairs").write_text(f"{pair_id(*gone['blocked_pair']).hex()}\n")
    parse = settings_of(**{kind: str(tmp_path / kind) for kind in KINDS})
    settings = Settings(core=CoreSettings(data_dir=str(tmp_path / "data")), parse=parse)
    store = LocalStore(tmp_path / "store")

    stats = parse_partition("C", 0, [(0, wat)], settings, store)
    assert stats.dropped == {"blocked_domain": 1, "blocked_url": 2, "blocked_pair": 1}
    with store.open("pairs/C/part-00000.parquet") as file:
        rows = {(row["url"], row["caption"]) for row in pq.read_table(file).to_pylist()}
    assert rows == set(stays)

    assert parse_partition("C", 0, [(0, wat)], settings, store) == stats
    (tmp_path / "urls").write_text("www.example.org/\n")
    assert parse_partition("C", 0, [(0, wat)], settings, store).dropped["blocked_url"] == 5


def test_a_list_at_another_place_parses_no_partition_again(tmp_path: Path) -> None:
    wat = Path(
        write_wat(tmp_path / "a.wat.gz", [page_record("https://p.example/", [image("/a.jpg", "A text")])])
    )
    core = CoreSettings(data_dir=str(tmp_path / "data"))
    store = LocalStore(tmp_path / "store")
    found = []
    for name in ("here", "there"):
        (tmp_path / name).write_text("example.com\n")
        settings = Settings(core=core, parse=settings_of(domains=str(tmp_path / name)))
        found.append(parse_partition("C", 0, [(0, str(wat))], settings, store))
        wat.unlink(missing_ok=True)
    assert found[0] == found[1]
