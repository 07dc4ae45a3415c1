"""What was listed or removed by one version of the URL rule is found by the next one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.blocklists import compiled, load_blocklists
from laion_etl.blocklists.removal_requests import Matcher, Request, blanked, read_requests
from laion_etl.core.errors import InputError
from laion_etl.core.funnel import ParseReason
from laion_etl.core.schemas import BATCH_SCHEMA, pair_id
from laion_etl.io.storage import LocalStore
from laion_etl.parse.stage import parse_partition
from laion_etl.removal.lists import read_list
from laion_etl.settings import CoreSettings, ParseSettings, Settings
from laion_etl.urls import normalize
from tests.parse.wat_files import image, page_record, write_wat

PHOTO = "https://img.example.org/Photo.jpg"
TEXT = "A red car on a green field"


def raise_version(patch: pytest.MonkeyPatch) -> None:
    """Do what normalize.py asks for when the rule changes; the next one keeps no query, case or `www.`."""
    earlier = normalize.resolve

    def resolve(raw: str, base: str) -> str | ParseReason:
        form = earlier(raw, base)
        return form if isinstance(form, ParseReason) else _shorter(form)

    def resolve_plain(*arguments: object) -> object:
        states = arguments[-1]
        assert isinstance(states, np.ndarray)
        states[:] = normalize.NEEDS_PARSER
        return arguments[4]

    patch.setitem(normalize.EARLIER_RULES, normalize.RULE_VERSION, earlier)
    patch.setattr(normalize, "RULE_VERSION", normalize.RULE_VERSION + 1)
    patch.setattr(normalize, "resolve", resolve)
    patch.setattr(normalize, "resolve_plain", resolve_plain)


def _shorter(url: str) -> str:
    return url.partition("?")[0].lower().replace("//www.", "//")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(core=CoreSettings(data_dir=str(tmp_path / "data")))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def parsed(links: list[tuple[str, str]], settings: Settings, store: LocalStore) -> dict[str, int]:
    """Parse a page with these links; return why links were dropped."""
    wat = write_wat(
        settings.data_path.parent / "a.wat.gz",
        [page_record("https://p.example/", [image(*x) for x in links])],
    )
    return parse_partition("C", 0, [(0, wat)], settings, store).dropped


def test_every_earlier_rule_is_kept() -> None:
    assert sorted(normalize.EARLIER_RULES) == list(range(1, normalize.RULE_VERSION))


SHAPES = [
    "https://a.example/",
    "https://a.example/a/../b.jpg",
    "https://a.example/./x",
    "https://A.example/x",
    "https://a.example/a.jpg#part",
    "http://a.example:80/x",
    "http://a.example:8080/x",
    "http://1.2.3/x",
    "http://a.example/%7euser",
    "http://a.example/%zz",
    "http://a.example/%7Euser?a=%2f",
    "http://a.example/a'b?c'd",
    "https://xn--mnchen-3ya.example/x",
    "http://a.example/a|b?c^d`{}",
    "http://user@a.example/x",
    "https://a.example/a\\b",
    "https://a.example/é.jpg",
    "https://a.example?x",
    "https://a.example/x?a=b&c",
    "https://a.example//x/",
    "https://a.example/...",
    "https://a.example/..?x",
    "http://[::1]/x",
    "https://a.example/a%2Eb",
]


@given(st.lists(st.one_of(st.sampled_from(SHAPES), st.from_regex(r"https?://[ -~é]{1,24}", fullmatch=True))))
def test_urls_that_are_left_out_have_one_form_by_every_rule(urls: list[str]) -> None:
    may_differ = normalize.may_have_other_forms(pa.array(["", *urls], pa.string()))[1:]
    for url, asked in zip(urls, may_differ.tolist(), strict=True):
        forms = {
            normalize.form_by_rule(rule, url) for rule in (*normalize.EARLIER_RULES, normalize.RULE_VERSION)
        }
        assert asked or forms == {url}


def test_most_urls_are_left_out() -> None:
    plain = ["https://a.example/photos/1.jpg", "http://cdn.a.example/x.png?w=200&h=100"]
    sliced = pa.array(["https://a.example/%7e", *plain, PHOTO, f"{PHOTO}#part"]).slice(1)
    assert normalize.may_have_other_forms(sliced).tolist() == [False, False, False, True]
    assert normalize.may_have_other_forms(sliced.slice(4)).tolist() == []


def test_a_compiled_blocklist_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, store: LocalStore
) -> None:
    monkeypatch.setattr(compiled, "_SETTLED_S", -10)  # the list counts as unchanged at once
    (tmp_path / "urls").write_text("www.example.org/Private/\n")
    (tmp_path / "pairs").write_text(f"{pair_id(f'{PHOTO}?id=7', TEXT).hex()}\n")
    rules = ParseSettings(blocked_urls=(str(tmp_path / "urls"),), blocked_pairs=(str(tmp_path / "pairs"),))
    settings = Settings(core=settings.core, parse=rules)
    links = [
        ("https://www.example.org/Private/a.jpg", TEXT),
        (f"{PHOTO}?id=7", TEXT),
        (f"{PHOTO}?id=8", TEXT),
    ]
    assert parsed(links, settings, store) == {"blocked_pair": 1, "blocked_url": 1}
    folder = settings.data_path / "blocklists"
    before = {path.name for path in folder.glob("*.u64")}

    raise_version(monkeypatch)
    assert parsed(links, settings, store) == {"blocked_pair": 1, "blocked_url": 1}
    after = {path.name for path in folder.glob("*.u64")}
    assert len(before) == len(after) == 2
    assert not before & after
    monkeypatch.setattr(compiled, "get_hasher", None)  # a list that is compiled is not compiled again
    load_blocklists(rules, settings.data_path)


def test_what_was_removed_is_not_parsed_by_the_next_rule(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, store: LocalStore
) -> None:
    listed = f"{PHOTO}?id=7\nwww.example.net\npair:{pair_id(f'{PHOTO}?id=9', TEXT).hex()}\n"
    request = read_list(listed.encode(), "list")
    store.write(request.name, request.to_json())
    raise_version(monkeypatch)
    links = [
        (f"{PHOTO}?id=7", "Another text of it"),
        ("//www.example.net/a.jpg", TEXT),
        (f"{PHOTO}?id=9", TEXT),
        (f"{PHOTO}?id=8", "A text that stays"),
    ]
    assert parsed(links, settings, store) == {"blocked_domain": 1, "blocked_pair": 1, "blocked_url": 1}
    with store.open("pairs/C/part-00000.parquet") as file:
        [row] = pq.read_table(file).to_pylist()
    assert (row["url"], row["caption"]) == ("https://img.example.org/photo.jpg", "A text that stays")


def test_what_the_first_rule_removed_stays_removed_however_it_is_escaped(
    settings: Settings, store: LocalStore
) -> None:
    """The first rule gave escapes another form, and requests keep hashes of it."""
    listed = "example.org/~me/\nexample.net/a%2Fb.jpg\n"
    pair = pair_id("https://img.example.org/~x.jpg?s=%2B", TEXT).hex()
    request = replace(read_list(f"{listed}pair:{pair}\n".encode(), "list"), url_rule=1)
    store.write(request.name, request.to_json())
    links = [
        ("https://example.org/%7eme/1.jpg", "A text of one"),
        ("https://example.org/~me/2.jpg", "A text of two"),
        ("https://example.net/%61%2fb.jpg", "A text of three"),
        ("https://img.example.org/%7Ex.jpg?s=%2b", TEXT),
        ("https://img.example.org/%7Ex.jpg?s=%2b", "A text that stays"),
    ]
    assert parsed(links, settings, store) == {"blocked_url": 3, "blocked_pair": 1}
    with store.open("pairs/C/part-00000.parquet") as file:
        [row] = pq.read_table(file).to_pylist()
    assert (row["url"], row["caption"]) == (links[-1][0], "A text that stays")


def batch(*links: tuple[str, str]) -> pa.Table:
    rows = [
        {"pair_id": pair_id(*link), "url": link[0], "caption": link[1], "language": "", "license": "?",
         "page_url": "https://p.example/"} for link in links
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, BATCH_SCHEMA)


@pytest.mark.parametrize("caption", ["caption", "alt"])
def test_rows_of_the_earlier_rule_are_found_by_requests_of_both(
    caption: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = batch(
        (f"{PHOTO}?id=7", TEXT),
        (f"{PHOTO}?id=8", TEXT),
        ("https://www.example.org/Other.jpg", TEXT),
        ("https://www.example.net/a.jpg", TEXT),
        ("https://img.example.org/c.jpg", TEXT),
        ("", ""),
    )
    rows = rows.rename_columns([caption if name == "caption" else name for name in rows.column_names])
    earlier = read_list(f"{PHOTO}?id=8".encode(), "list")
    raise_version(monkeypatch)
    other = pair_id("https://example.org/other.jpg", TEXT).hex()
    later = read_list(f"https://www.example.net/A.jpg\npair:{other}".encode(), "list")
    matcher = Matcher([earlier, later], 31)
    assert matcher.match_rules(rows).tolist() == [None, "urls", "pairs", "urls", None, None]
    assert [bool(url) for url in blanked(rows, matcher)["url"].to_pylist()] == [
        True, False, False, False, True, False,
    ]  # fmt: skip


def changed(change: Callable[[dict[str, object]], object], store: LocalStore) -> Request:
    """Store a request of the first rule, change its file and read it."""
    request = replace(read_list(b"example.org", "list"), url_rule=1)
    document = json.loads(request.to_json())
    change(document)
    store.write(request.name, json.dumps(document).encode())
    [found] = read_requests(store)
    assert (found.id, found.rules) == (request.id, request.rules)
    return found


def test_a_request_of_the_previous_version_is_of_the_first_rule(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_before(document: dict[str, object]) -> None:
        del document["url_rule"]
        document["format"] = 1

    first = changed(as_before, store)
    assert first.url_rule == 1
    raise_version(monkeypatch)
    second = read_list(b"example.org", "list")
    assert (second.url_rule, second.rules) == (normalize.RULE_VERSION, first.rules)
    assert second.id != first.id  # both are kept, for a host may have another form now


def test_a_request_of_a_newer_rule_or_format_is_refused(store: LocalStore) -> None:
    with pytest.raises(
        InputError, match="by URL rule 3 of a newer laion-etl, this one reads up to 2; upgrade"
    ):
        changed(lambda document: document.update(url_rule=3), store)
    with pytest.raises(InputError, match="by format 3 of a newer laion-etl, this one reads up to 2; upgrade"):
        changed(lambda document: document.update(format=3), store)
