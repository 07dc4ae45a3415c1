"""robots.txt as RFC 9309 and the large crawlers read it, as a table; and what its failures mean."""

import gzip
import json
from collections.abc import Callable
from itertools import permutations

import pytest
import trio
from trio.testing import MockClock

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import RequestUrl, parse_request_url
from laion_etl.download.robots import MAX_POLICY_FILE_BYTES, OtherHostFailed, PolicyFile, RobotsPolicy
from laion_etl.download.robots_names import product_token
from laion_etl.download.robots_rules import parse_robots_txt
from laion_etl.download.tdmrep import is_reserved, parse_tdmrep
from laion_etl.settings import DownloadSettings

UMLAUT = "/gr\u00f6\u00dfe/"
ALL = "User-agent: *\n"
OURS = "User-agent: FooBot\n"
OTHER = "User-agent: BarBot\n"
HIDDEN = ("/.*", "/.*/", "/.*/*", "/.*/$", "/.*/ # hidden")

# Sources: section numbers are RFC 9309. "crawlers" is what the public test cases of robots.txt parsers agree
# on (longest match, lenient lines). "careful" is our choice where neither decides: no owner's wish is lost.
# Each case: file, path with query, whether FooBot may fetch it.
RSL = "License: https://foo.example/license.xml"
CASES: dict[str, list[tuple[str | bytes, str, bool]]] = {
    "RSL 1.0: terms for AI that are elsewhere concern everyone, and are not read": [
        (RSL, "/x", False),
        (RSL + "\n\n" + ALL + "Allow: /", "/x", False),
        (ALL + "Allow: /\n\n" + RSL, "/x", False),
        (OTHER + RSL + "\nDisallow: /a", "/x", False),
        (OURS + "Allow: /\n" + OTHER + RSL, "/x", False),
        (ALL + "license:https://foo.example/license.xml", "/x", False),
        (ALL + "Licence: <https://foo.example/rsl>", "/x", False),
        (ALL + "LICENSE: HTTP://OTHER.EXAMPLE/RSL?a=b", "/x", False),
        (ALL + "RSL-License: https://foo.example/license.xml", "/x", False),
        (ALL + "License: https://creativecommons.org.evil.example/l.xml", "/x", False),
        (ALL + "License: see https://foo.example/license.xml", "/x", False),
        (
            ALL + "License: CC0, https://creativecommons.org/publicdomain/zero/1.0/, //foo.example/l",
            "/x",
            False,
        ),
        (ALL + "License: https:/foo.example/license.xml", "/x", False),
        (ALL + "Licences: https://foo.example/license.xml", "/x", False),
        *(
            (ALL + f"License: {url}", "/x", False)
            for url in (
                "https://notgnu.org/license.xml",
                "https://mygnu.org/l.xml",
                "https://not-gnu.org/",
                "https://foo.example?x=gnu.org/",
                "https://foo.example/?x=.gnu.org/",
                "https://foo.example#gnu.org/",
                "https://foo.example#.gnu.org/",
                "https://foo.example?.gnu.org/",
                "https://user@gnu.org.foo.example/",
                "https://gnu.org@foo.example/",
                "https://gnu.org:x@foo.example/",
                "https://gnu.org.foo.example",
                "https://gnu.org\\@foo.example/",
                "https://foo.example\\.gnu.org/",
                "https://a.example/gnu.org/",
                "https://-.gnu.organic/l.xml",
                "https://gnu.org-foo.example/",
            )
        ),
        (ALL + "License: https://creativecommons.org/licenses/by/4.0/", "/x", True),
        (ALL + "License: <https://creativecommons.org>", "/x", True),
        (ALL + "License: https://opensource.org#mit", "/x", True),
        (ALL + "License: https://api.www.spdx.org/licenses/MIT", "/x", True),
        (ALL + "License: https://www.gnu.org/licenses/gpl-3.0.html", "/x", True),
        (ALL + "License: CC0", "/x", True),
        (ALL + "License: CC0 (https://creativecommons.org/publicdomain/zero/1.0/)", "/x", True),
        (ALL + "License:", "/x", True),
        (ALL + "License: /license.xml", "/x", True),  # the specification wants a whole URL
        (ALL + "# " + RSL, "/x", True),
        (ALL + "Sitemap: https://foo.example/license.xml", "/x", True),
        (RSL + "\n" + OTHER + "Disallow: /", "/robots.txt", True),
    ],
    "2.2.1 groups and their user agents": [
        ("", "/x", True),
        (OURS + "Disallow: /", "/x", False),
        ("user-agent: foobot\ndisallow: /", "/x", False),
        ("USER-AGENT: FOOBOT\nDISALLOW: /", "/x", False),
        (OTHER + "Disallow: /", "/x", True),
        (ALL + "Disallow: /", "/x", False),
        (ALL + "Disallow: /\n" + OURS + "Allow: /", "/x", True),
        (OURS + "Allow: /\n" + ALL + "Disallow: /", "/x", True),
        (ALL + "Allow: /\n" + OURS + "Disallow: /", "/x", False),
        (ALL + "Disallow: /\n" + OURS, "/x", True),  # our group is there, and empty
        (ALL + "Disallow: /\n" + OTHER + "Allow: /", "/x", False),
        (OURS + OTHER + "Disallow: /", "/x", False),
        (OTHER + OURS + "Disallow: /", "/x", False),
        (OTHER + "\n\n" + OURS + "\nDisallow: /", "/x", False),
        (OTHER + "Disallow: /\n" + OURS + "Disallow: /a", "/x", True),
        (OURS + "Disallow: /a\n" + OTHER + "Disallow: /\n" + OURS + "Disallow: /b", "/a", False),
        (OURS + "Disallow: /a\n" + OTHER + "Disallow: /\n" + OURS + "Disallow: /b", "/b", False),
        (OURS + "Disallow: /a\n" + OTHER + "Disallow: /\n" + OURS + "Disallow: /b", "/x", True),
        (ALL + "Disallow: /a\n\n" + ALL + "Disallow: /b", "/a", False),
        (ALL + OURS + "Disallow: /", "/x", False),
        (ALL + OTHER + "Disallow: /", "/x", False),
        ("Disallow: /", "/x", False),  # no group at all: ignored by crawlers, but it can mean nothing else
        ("Allow: /\nDisallow: /a", "/b", True),
        ("Disallow: /\n" + OURS + "Disallow: /a", "/x", True),
        ("User-agent: Foo\nDisallow: /", "/x", True),
        ("User-agent: FooBotNews\nDisallow: /", "/x", True),
        ("User-agent: FooBot-News\nDisallow: /", "/x", True),
        ("User-agent: xFooBot\nDisallow: /", "/x", True),
        ("User-agent:\nDisallow: /", "/x", False),  # likewise
    ],
    "crawlers: names with more behind them": [
        ("User-agent: FooBot/1.2\nDisallow: /", "/x", False),
        ("User-agent: FooBot 1.2\nDisallow: /", "/x", False),
        ("User-agent: foobot/2.0 (+http://foo.example)\nDisallow: /", "/x", False),
        ("User-agent: FooBot*\nDisallow: /", "/x", False),
        ("User-agent: FooBot # ours\nDisallow: /", "/x", False),
        ("User-agent: BarBot/1.0\nUser-agent: FooBot/1.0\nDisallow: /", "/x", False),
        ("User-agent: * # everyone\nDisallow: /", "/x", False),
        ("User-agent: * baz\nDisallow: /", "/x", False),
        ("User-agent: *baz\nDisallow: /", "/x", True),
    ],
    "careful: the whole header as a name": [
        ("User-agent: Mozilla/5.0 (compatible; FooBot/1.0; +url)\nDisallow: /", "/x", False),
        ("User-agent: Mozilla/5.0 (compatible; BarBot/1.0; +url)\nDisallow: /", "/x", True),
    ],
    "2.2.4 lines that are not known": [
        (OURS + "Crawl-delay: 10\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Request-rate: 1/5\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Sitemap: https://foo.example/map.xml\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Host: foo.example\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Clean-param: ref /\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Visit-time: 0600-0845\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Content-signal: search=yes\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "what is this\n" + OTHER + "Disallow: /", "/x", False),
        (OURS + "Disallow: /a\nCrawl-delay: 1\nDisallow: /b", "/b", False),
        (OURS + "Disallow: /a\nSitemap: /map.xml\nDisallow: /b", "/b", False),
        (OURS + "Disallow: /a\nSitemap: /map.xml\n" + OTHER + "Disallow: /", "/x", True),
        ("Sitemap: /map.xml\n" + OURS + "Disallow: /", "/x", False),
        (OURS + "Noindex: /", "/x", True),
    ],
    "2.2.2 the longest rule": [
        (OURS + "Allow: /a/b\nDisallow: /a", "/a/b", True),
        (OURS + "Disallow: /a\nAllow: /a/b", "/a/b", True),
        (OURS + "Disallow: /a\nAllow: /a/b", "/a/c", False),
        (OURS + "Allow: /a\nDisallow: /a/b", "/a/b", False),
        (OURS + "Disallow: /a\nAllow: /a", "/a", True),  # equal: the Allow
        (OURS + "Allow: /a\nDisallow: /a", "/a", True),
        (OURS + "Disallow: /\nAllow: /", "/x", True),
        (OURS + "Disallow: /\nAllow: /a.jpg$", "/a.jpg", True),
        (OURS + "Disallow: /\nAllow: /a.jpg$", "/a.jpg?1", False),
        (OURS + "Disallow: /folder\nAllow: /f", "/folder/x", False),
        (OURS + "Disallow: /folder/\nAllow: /*.jpg", "/folder/x.jpg", False),
        (OURS + "Disallow: /fol*\nAllow: /*/long/enough", "/folder/long/enough", True),
        (OURS + "Disallow: /x*\nAllow: /x", "/x", False),  # one octet longer
        (OURS + "Disallow: /*.jpg$\nAllow: /a.jpg", "/a.jpg", False),
        (OURS + "Disallow:", "/x", True),
        (OURS + "Disallow:\nDisallow: /a", "/a", False),
        (OURS + "Disallow: /\nAllow:", "/x", False),
        (OURS + "Disallow: /", "/robots.txt", True),
        (OURS + "Disallow: /A", "/a", True),
        (OURS + "Disallow: /a", "/ab/c?d", False),
        (OURS + "Disallow: /a/", "/a", True),
        (OURS + "Disallow: /?", "/?id=1", False),
        (OURS + "Disallow: /?", "/x?id=1", True),
        (OURS + "Disallow: /a?b=1", "/a?b=12", False),
        (OURS + "Disallow: /a;b", "/a;b", False),
    ],
    "2.2.2 percent-encoding": [
        (OURS + "Disallow: /foo/bar?baz=quz", "/foo/bar?baz=quz", False),
        (OURS + "Disallow: /foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar", False),
        (OURS + "Disallow: /foo/bar?baz=https%3a%2f%2Ffoo.bar", "/foo/bar?baz=https://foo.bar", False),
        (OURS + "Disallow: /foo/bar/\u30c4", "/foo/bar/%E3%83%84", False),
        (OURS + "Disallow: /foo/bar/%E3%83%84", "/foo/bar/%E3%83%84", False),
        (OURS + "Disallow: /foo/bar/%e3%83%84", "/foo/bar/%E3%83%84", False),
        (OURS + "Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        (OURS + "Disallow: /foo/bar/baz", "/foo/bar/%62%61%7A", False),
        (OURS + f"Disallow: {UMLAUT}", "/gr%C3%B6%C3%9Fe/1.jpg", False),
        (OURS + f"Disallow: {UMLAUT}*", "/gr%c3%b6%c3%9fe/1.jpg", False),
        (OURS + "Disallow: /gr%c3%b6%C3%9fe/", "/gr%C3%B6%C3%9Fe/1.jpg", False),
        (OURS + f"Disallow: {UMLAUT}", "/groesse/1.jpg", True),
        ((OURS + f"Disallow: {UMLAUT}").encode("latin-1"), "/gr%F6%DFe/1.jpg", False),
        (OURS + "Disallow: /a b", "/a%20b", False),
        (OURS + "Disallow: /a%20b", "/a%20b", False),
        (OURS + "Disallow: /%7Ejoe/", "/~joe/x", False),
        (OURS + "Disallow: /~joe/", "/%7ejoe/x", False),
        (OURS + "Disallow: /100%", "/100%25/x", False),
        (OURS + "Disallow: /a%2562", "/ab", True),  # decoded once
        (OURS + "Disallow: /a\nAllow: /%61", "/a", True),  # the same pattern
    ],
    "2.2.3 * and $": [
        (OURS + "Disallow: *", "/x", False),
        (OURS + "Disallow: /*", "/x", False),
        (OURS + "Disallow: *.jpg", "/a/b.jpg", False),
        (OURS + "Disallow: /*.jpg", "/a/b.jpg?1", False),
        (OURS + "Disallow: /*.jpg$", "/a/b.jpg", False),
        (OURS + "Disallow: /*.jpg$", "/a/b.jpg?1", True),
        (OURS + "Disallow: /*.jpg$", "/a.jpg/b.jpg", False),
        (OURS + "Disallow: /a*b*c", "/a--b--c--", False),
        (OURS + "Disallow: /a*b*c", "/a--c--b", True),
        (OURS + "Disallow: /a***b", "/ab", False),
        (OURS + "Disallow: /a*$", "/abc", False),
        (OURS + "Disallow: /a$", "/a", False),
        (OURS + "Disallow: /a$", "/ab", True),
        (OURS + "Disallow: /a$b", "/a$b", False),
        (OURS + "Disallow: /a$b", "/a", True),
        (OURS + "Disallow: /ab*ab$", "/ab", True),
        (OURS + "Disallow: /*?*size=", "/x?a=1&size=2", False),
        (OURS + "Disallow: /*/private/", "/x?u=/private/", False),
        (OURS + "Disallow: /a%2Ab", "/a*b", False),
        (OURS + "Disallow: /a%2Ab", "/axb", True),
        (OURS + "Disallow: /a%24", "/a$b", False),
        (OURS + "Disallow: /a%24", "/a", True),
    ],
    "2.2 lines, comments and spaces": [
        ("User-agent: FooBot\r\nDisallow: /\r\n", "/x", False),
        ("User-agent: FooBot\rDisallow: /\r", "/x", False),
        ("  User-agent :\tFooBot  \n\tDisallow\t:  /  ", "/x", False),
        ("User-agent:FooBot\nDisallow:/", "/x", False),
        ("# hello\n" + OURS + "# rules\nDisallow: /a # not this\n", "/a", False),
        (OURS + "Disallow: /a#b", "/a", False),
        (OURS + "#Disallow: /", "/x", True),
        (OURS + "\n\nDisallow: /", "/x", False),
        ("<html><body>\nDisallow: /\n</body></html>", "/x", True),
    ],
    "crawlers: byte order marks": [
        (("\ufeff" + OURS + "Disallow: /").encode(), "/x", False),
        (("\ufeff" + ALL + "Disallow: /").encode(), "/x", False),
        (("\ufeff# a comment\n" + ALL + "Disallow: /").encode(), "/x", False),
        ((OURS + "Disallow: /").encode("utf-16"), "/x", False),
    ],
    "careful: octets that are not shown": [
        (("\ufeff\ufeff" + ALL + "Disallow: /").encode(), "/x", False),  # two editors
        (("\ufeff\r" + ALL.replace("\n", "\r") + "Disallow: /\r").encode(), "/x", False),
        ((ALL + "Allow: /a\n\ufeff" + OURS + "Disallow: /").encode(), "/x", False),  # two files in one
        ((OURS + "Disallow: /").encode("utf-16-le"), "/x", False),  # without a mark
        ("User-agent: *\u00a0\nDisallow:\u00a0/", "/x", False),
        ("\u00a0User-agent\u00a0: *\n\u00a0Disallow: /\u200b", "/x", False),
        ("User-agent: FooBot\0\nDisallow: /\0", "/x", False),
    ],
    "careful: quotes, lists and equals signs": [
        ("User-agent: '*'\nDisallow: /", "/x", False),
        ('User-agent: "FooBot"\nDisallow: "/a/"', "/a/x", False),
        ("User-agent: *, BarBot\nDisallow: /", "/x", False),
        ("User-agent: BarBot, FooBot/1.0\nDisallow: /", "/x", False),
        ("User-agent: BarBot FooBot\nDisallow: /", "/x", False),
        ("User-agent: BarBot\tFooBot/1.0 BazBot\nDisallow: /", "/x", False),
        ("User-agent: BarBot *\nDisallow: /", "/x", False),
        ("User-agent: BarBot BazBot\nDisallow: /", "/x", True),
        ("User-agent: Mozilla/5.0 (FooBot BazBot)\nDisallow: /", "/x", True),
        ("User-agent = *\nDisallow = /", "/x", False),
        (OURS + "Disallow: /a /b", "/b/x", False),
        (OURS + "Disallow: /a, /b", "/b/x", False),
        (OURS + "Disallow: /a,/b", "/a/x", False),
        (OURS + "Disallow: /b; /a", "/b/x", False),
        (OURS + "Disallow: b/, a/", "/a/x", False),
        (OURS + "Disallow: /*;/b", "/x", True),
        ("User-agent: BarBot; FooBot\nDisallow: /", "/x", False),
        (OURS + "Disallow: /\nAllow: /a /b", "/b", False),
        (OURS + 'Disallow: /\nAllow: "/b"', "/b", False),
    ],
    "crawlers: lines without a colon, and misspelt": [
        ("User-agent FooBot\nDisallow /", "/x", False),
        ("useragent: FooBot\nDisallow: /", "/x", False),
        ("user agent: FooBot\nDisallow: /", "/x", False),
        (OURS + "Dissallow: /", "/x", False),
        (OURS + "Disalow: /", "/x", False),
        (OURS + "Dissalow: /", "/x", False),
        (OURS + "Diasllow: /", "/x", False),
        (OURS + "Disallaw: /", "/x", False),
        (OURS + "Disallow /a:b", "/a:b", False),
        (OURS + "Disallow: /\nAlow: /", "/x", False),
        *(
            (OURS + line, "/x", False)
            for line in ("AI-Train no", "AI-Training disallowed", "AI-Input  n", "NoAI true")
        ),
        *(
            (OURS + line, "/x", True)
            for line in ("AI-Train yes", "AI training", "AI use our images", "AI-Input no one")
        ),
    ],
    "careful: product tokens that no crawler has": [
        ("User-agent: AI-bot\nDisallow: /", "/x", False),
        ("User-agent: ai-bots\nDisallow: /", "/x", False),
        ("User-agent: Any-bot\nDisallow: /", "/x", False),
        ("User-agent: all-crawlers\nDisallow: /", "/x", False),
        (ALL + "Disallow: /\nUser-agent: Any-bot\nAllow: /", "/x", False),  # they permit nothing
        ("User-agent: Any-bot\nDisallow: /\n" + OURS + "Disallow: /a", "/x", True),  # ours is more specific
        ("User-agent: Any-bot/1.0\nDisallow: /", "/x", True),  # a crawler has a version
        ("User-agent: Many-bot\nDisallow: /", "/x", True),
        ("User-agent: AI-botany\nDisallow: /", "/x", True),
    ],
    "careful: hidden folders, and regular expressions": [
        *((OURS + f"Disallow: {path}", "/images/a/1.jpg", True) for path in HIDDEN),
        *((OURS + f"Disallow: {path}", "/.git/", False) for path in HIDDEN),
        (OURS + "Disallow: /b/, /.*/", "/b/1.jpg", False),
        (OURS + "Disallow: /b/, /.*/", "/images/1.jpg", True),
        (OURS + "Disallow: /.*/a/", "/images/a/1.jpg", False),
        (OURS + "Disallow: /.+/", "/images/a/1.jpg", False),
        (OURS + "Disallow: /.*/.*", "/images/a/1.jpg", False),
        (OURS + "Disallow: /images/.*", "/images/a/1.jpg", False),
        (OURS + "Disallow: /.*[.]jpg", "/images/a/1.jpg", True),
    ],
    "careful: patterns that do not begin with a slash": [
        (OURS + "Disallow: images/", "/images/1.jpg", False),
        (OURS + "Disallow: https://foo.example/images/", "/images/1.jpg", False),
        (OURS + "Disallow: http://foo.example", "/x", False),
        (OURS + "Disallow: /images/\nAllow: images/1.jpg", "/images/1.jpg", False),
    ],
}
TABLE = [(source, *case) for source, cases in CASES.items() for case in cases]


def encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 120


@pytest.mark.parametrize(
    ("source", "text", "path", "allowed"), TABLE, ids=[f"{n} {case[0]}" for n, case in enumerate(TABLE)]
)
def test_rules(source: str, text: str | bytes, path: str, allowed: bool) -> None:
    assert parse_robots_txt(encoded(text), "FooBot").allows(path) is allowed, source


@pytest.mark.parametrize("first", ["AI-Input: no", "Content-Signal: ai-input=no", "Content-Usage: bots=n"])
@pytest.mark.parametrize("second", ["AI-Train: yes", "Content-Signal: ai-train=yes", "Allow: /", "Disallow:"])
def test_the_order_of_lines_does_not_matter(first: str, second: str) -> None:
    for lines in permutations((first, second, "Crawl-delay: 1")):
        for group in (ALL, OURS, ""):
            text = group + "\n".join(lines)
            assert not parse_robots_txt(text.encode(), "FooBot").allows("/x"), text
    wishes = ["ai-train=yes", "ai-input=no", "search=yes"]
    assert {
        parse_robots_txt(f"{ALL}Content-Signal: {', '.join(order)}".encode(), "FooBot").allows("/x")
        for order in permutations(wishes)
    } == {True}


@pytest.mark.parametrize(
    ("user_agent", "token"),
    [
        ("laion_etl/0.1 (operator contact not set)", "laion_etl"),
        ("MyBot", "MyBot"),
        ("MyBot/1.0", "MyBot"),
        ('"MyBot/1.0"', "MyBot"),
        ("My-Bot_2 (+https://my.example)", "My-Bot_2"),
        ("Mozilla/5.0 (compatible; MyBot/1.0; +url)", "MyBot"),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; MyBot/1.2; +url)", "MyBot"),
        ("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/72.0 (compatible; img2dataset; +url)",
         "img2dataset"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla"),
        ("Mozilla/5.0 (MyBot/1.0; +url)", "MyBot"),
        ("Mozilla/5.0 (compatible; MSIE 9.0; MyBot/1.0)", "MyBot"),
        ("Mozilla/5.0 (X11) AppleWebKit/605 (KHTML, like Gecko) Version/13 Safari/605 (MyBot/0.1)", "MyBot"),
        ("MyBot/1.0 (compatible; Other/2.0)", "MyBot"),
        ("(no name)", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_product_token(user_agent: str, token: str) -> None:
    assert product_token(user_agent) == token


def test_an_agent_without_a_name_has_the_rules_of_everyone() -> None:
    assert not parse_robots_txt(b"User-agent:\nAllow: /\nUser-agent: *\nDisallow: /", "").allows("/x")


@pytest.mark.parametrize(
    ("location", "path", "reserved"),
    [
        (UMLAUT, "/gr%C3%B6%C3%9Fe/1.jpg", True),
        (f"{UMLAUT}*", "/gr%C3%B6%C3%9Fe/1.jpg", True),
        ("/gr%c3%b6%c3%9fe/", "/gr%C3%B6%C3%9Fe/1.jpg", True),
        ("/gr%c3%b6%c3%9fe/", "/groesse/1.jpg", False),
        ("/%61", "/a", True),
        ("/*.jpg$", "/a.jpg", True),
        ("/*.jpg$", "/a.jpg?1", False),
        ("/\ud800", "/x", False),
    ],
)
def test_locations_of_tdmrep(location: str, path: str, reserved: bool) -> None:
    rules = parse_tdmrep(json.dumps([{"location": location, "tdm-reservation": 1}]).encode())
    assert is_reserved(rules, path) is reserved


RESERVED = '{"location": "/", "tdm-reservation": 1}'
NOT_RESERVED = '{"location": "/other/", "tdm-reservation": 0}'


@pytest.mark.parametrize(
    ("document", "reserved"),
    [
        ([{"location": "/", "tdm-reservation": 1}], True),
        ([{"location": "/", "tdm-reservation": "1"}], True),
        ([{"location": "/", "tdm-reservation": True}], True),
        ([{"location": "/", "tdm-reservation": 1.0}], True),
        ({"location": "/", "tdm-reservation": 1}, True),
        ([{"location": "https://a.example/", "tdm-reservation": 1}], True),
        ([{"location": "images/", "tdm-reservation": 1}], True),
        ([{"location": "images/", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], True),
        ([{"location": "/images/", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], False),
        ([{"location": "/", "tdm-reservation": 0}], False),
        ([{"location": "/"}], False),
        ({"rules": []}, False),
        ({"policies": [{"location": "/", "tdm-reservation": 1}]}, True),
        ({"policies": [{"location": "/other/", "tdm-reservation": 1}]}, False),
        ({"policies": {"all": {"location": "/images/", "tdm-reservation": 1}}}, True),
        ([[{"location": "/", "tdm-reservation": 1}]], True),
        ([{"rules": [{"location": "/", "tdm-reservation": 0}]}, json.loads(RESERVED)], True),
        ({"policies": [{"location": "/", "tdm-reservation": 0}], "tdm-reservation": 1}, True),
        ({"policies": []}, False),
        ({"policies": ["https://a.example/policy.json"]}, False),
        ([{"tdm-reservation": 1}], True),
        ([{"location": "", "tdm-reservation": 1}], True),
        ([{"location": None, "tdm-reservation": 1}], True),
        ([{"location": [], "tdm-reservation": 1}], True),
        ([{"location": {"path": "/"}, "tdm-reservation": 1}], True),
        ([{"location": "/", "tdm-policy": "https://a.example/policy.json"}, json.loads(RESERVED)], True),
        ([{"location": "/", "tdm-reservation": "unclear"}, json.loads(RESERVED)], True),
        ([{"location": "/", "tdm-reservation": "0"}, json.loads(RESERVED)], False),
        ([{"tdm-policy": "https://a.example/policy.json"}], False),
        ([{"location": ["/other/", "/images/"], "tdm-reservation": 1}], True),
        ([{"location": "/other/ /images/", "tdm-reservation": 1}], True),
        ([{"location": "/other/, /images/", "tdm-reservation": 1}], True),
        ([{"location": "/other/ /images/", "tdm-reservation": 0}, json.loads(RESERVED)], True),
        ([{"location": "/", "TDM_Reservation": 1}], True),
    ],
)  # fmt: skip
def test_reservations_of_tdmrep_are_read_on_the_careful_side(document: object, reserved: bool) -> None:
    assert is_reserved(parse_tdmrep(json.dumps(document).encode()), "/images/1.jpg") is reserved


@pytest.mark.parametrize(
    ("text", "reserved"),
    [
        ('[{"location": "/images/", "tdm-reservation": 1, "location": "/b"}]', True),
        ('[{"location": "/b", "tdm-reservation": 1, "location": ["/images/"]}]', True),
        ('[{"location": "/", "tdm-reservation": 1, "tdm-reservation": 0}]', True),
        ('[{"location": "/", "tdm-reservation": 0, "tdm-reservation": 1}]', True),
        ('{"policies": [{"location": "/", "tdm-reservation": 1}], "policies": []}', True),
        ('[{"location": "/b", "tdm-reservation": 1, "location": "/c"}]', False),
    ],
)  # fmt: skip
def test_a_key_of_tdmrep_that_occurs_twice_has_all_its_values(text: str, reserved: bool) -> None:
    assert is_reserved(parse_tdmrep(text.encode()), "/images/1.jpg") is reserved


@pytest.mark.parametrize(
    "text",
    [
        f"[{RESERVED},]",
        '[{"location": "/", "tdm-reservation": 1,}]',
        f"[{NOT_RESERVED} {RESERVED}]",
        f"[{RESERVED}, {NOT_RESERVED[:-9]}",
        f"[{{'location': '/other/'}}, {RESERVED}]",
        f"[{', '.join([NOT_RESERVED] * 1_000)}, {RESERVED}]",
        f'[{{"location": "/gr\u00f6\u00dfe/", "tdm-reservation": 1}}, {RESERVED}]'.encode("latin-1"),
        f"\ufeff[{RESERVED}]",
        f"&quot; &#{'1' * 5_000}; [{RESERVED}]",
        f'[{{"location": "/&#{"1" * 5_000};", "tdm-reservation": 1}}, {RESERVED}]',
    ],
)
def test_what_is_wrong_in_tdmrep_hides_no_reservation(text: str | bytes) -> None:
    assert is_reserved(parse_tdmrep(encoded(text)), "/images/1.jpg")


@pytest.mark.parametrize("filling", ["{", "}", "{},", '{"a":', '{"a,', "{,,,}", "[", ", ", "content-usage: "])
def test_a_tdmrep_made_to_take_long_takes_no_longer_than_others(filling: str) -> None:
    hostile = filling * (400_000 // len(filling)) + '"}' + RESERVED
    assert is_reserved(parse_tdmrep(hostile.encode()), "/images/1.jpg")


def test_25_000_rules_without_wildcards_are_looked_up_and_not_tried() -> None:
    lines = "".join(f"Disallow: /folder/{n:06}/\n" for n in range(25_000))
    rules = parse_robots_txt((ALL + lines).encode(), "FooBot")
    assert rules.tried_parts == 0
    assert not rules.allows("/folder/024999/x.jpg")
    assert rules.allows("/folder/025000/x.jpg")


@pytest.mark.parametrize(
    "filling", [b" ", b"a", b"/ ", b"/a,", b"a/", b"compatible; ", b"*", b"\xc2\xa0", b"\\na:"]
)
@pytest.mark.parametrize("beginning", [b"Disallow: /a", b"User-agent: Mozilla/5.0 ", b"User-agent", b""])
def test_lines_made_to_take_long_take_no_longer_than_others(beginning: bytes, filling: bytes) -> None:
    """Quadratic time would be minutes here, while nothing else in the process runs."""
    hostile = beginning + filling * (400_000 // len(filling)) + b"!\n"
    assert not parse_robots_txt(hostile + b"User-agent: FooBot\nDisallow: /", "FooBot").allows("/x")


def test_many_paths_that_may_be_fetched_and_as_many_that_must_not_be_used() -> None:
    lines = [f"Allow: /a{n}\nContent-Usage: /b{n} train-ai=n" for n in range(11_000)]
    rules = parse_robots_txt("\n".join(["User-agent: *", "Disallow: /", *lines]).encode(), "FooBot")
    assert rules.allows("/a9")
    assert not rules.allows("/b9")


def test_blanks_within_a_line_take_no_longer_than_others() -> None:
    hostile = b"User-agent: *\nDisallow: /x\nallow:" + b" " * 400_000 + b"("
    assert not parse_robots_txt(hostile, "FooBot").allows("/x")


@pytest.mark.parametrize("opening", ['{"a":', '{"usage":{"a":', '{"content-usage":[{"a":'])
def test_a_reservation_file_made_to_take_long_takes_no_longer_than_others(opening: str) -> None:
    """A text that were read once for every level would take minutes here."""
    levels = 900 // opening.count("{")
    inner = ",".join(['"ai=y"'] * 70_000)
    ends = "".join({"{": "}", "[": "]"}.get(one, "") for one in reversed(opening)) * levels
    hostile = f'[{opening * levels}[{inner}]{ends},{{"location":"/x","tdm-reservation":1}}]'
    rules = parse_tdmrep(hostile.encode())
    assert is_reserved(rules, "/x")
    assert not is_reserved(rules, "/y")


def test_many_wildcards_are_all_tried() -> None:
    lines = "".join(f"Disallow: /*/{n:06}/\n" for n in range(25_000))
    rules = parse_robots_txt((ALL + lines).encode(), "FooBot")
    assert rules.tried_parts == 50_000
    assert not rules.allows("/a/024999/x.jpg")
    assert rules.allows("/a/025000/x.jpg")


MANY_PARTS = "/" + "*a" * 200 + "*b"


def test_a_pattern_of_very_many_parts_forbids_more_but_permits_nothing() -> None:
    path = "/" + "a" * 200
    robots = parse_robots_txt(f"{ALL}Disallow: {MANY_PARTS}".encode(), "FooBot")
    assert not robots.allows(path)
    allows = parse_robots_txt(f"{ALL}Disallow: /\nAllow: {MANY_PARTS}".encode(), "FooBot")
    assert not allows.allows(path + "b")
    rules = [{"location": MANY_PARTS, "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]
    assert is_reserved(parse_tdmrep(json.dumps(rules).encode()), path + "b")
    assert is_reserved(parse_tdmrep(json.dumps([rules[0] | {"tdm-reservation": 1}]).encode()), path)


Answer = PolicyFile | LinkFailed
URL = "http://a.example/1.jpg"


class Server:
    """Gives its answers to robots.txt one after another, the last one always; tdmrep.json is missing."""

    def __init__(self, *answers: Answer, tdmrep: Answer | None = None) -> None:
        self.asked_at: list[float] = []
        self._answers = list(answers)
        self._tdmrep = tdmrep or PolicyFile(404, b"")

    async def get(self, target: RequestUrl) -> PolicyFile:
        answer = self._tdmrep
        if target.path == "/robots.txt":
            self.asked_at.append(trio.current_time())
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, LinkFailed):
            raise answer
        return answer

    def outcome(self, url: str = URL, retries: int = 1) -> tuple[S, str]:
        """Returns how the second link of the host ends."""

        async def main() -> tuple[S, str]:
            policy = RobotsPolicy("FooBot", self.get, DownloadSettings(retries=retries))
            found = (S.SUCCESS, "")
            for _ in range(2):
                try:
                    await policy.check(parse_request_url(url))
                except LinkFailed as failure:
                    found = (failure.status, failure.message)
            return found

        return trio.run(main, clock=MockClock(autojump_threshold=0))


FORBIDS = PolicyFile(200, b"User-agent: *\nDisallow: /")
ALLOWS = PolicyFile(200, b"User-agent: *\nDisallow:")


@pytest.mark.parametrize("status", [200, 203, 206])
def test_rules_of_any_success_are_obeyed(status: int) -> None:
    assert Server(PolicyFile(status, FORBIDS.body)).outcome()[0] is S.OPTED_OUT_ROBOTS_TXT


@pytest.mark.parametrize("status", [204, 300, 304, 401, 403, 404, 410, 451])
def test_a_file_that_is_unavailable_forbids_nothing(status: int) -> None:
    server = Server(PolicyFile(status, b"" if status == 204 else FORBIDS.body))
    assert server.outcome()[0] is S.SUCCESS
    assert len(server.asked_at) == 1


PASSING: list[Callable[[], Answer]] = [
    lambda: PolicyFile(429, b""),
    lambda: PolicyFile(408, b""),
    lambda: PolicyFile(421, b""),
    lambda: PolicyFile(425, b""),
    lambda: PolicyFile(499, b""),
    lambda: PolicyFile(500, b""),
    lambda: PolicyFile(503, b""),
    lambda: LinkFailed(S.TIMEOUT, "first byte"),
    lambda: LinkFailed(S.BAD_RESPONSE, "connection broken"),
    lambda: OtherHostFailed(S.CONNECT_FAILED),
]


@pytest.mark.parametrize("failure", PASSING)
def test_robots_txt_that_fails_once_is_asked_for_again(failure: Callable[[], Answer]) -> None:
    assert Server(failure(), ALLOWS).outcome()[0] is S.SUCCESS
    server = Server(failure(), FORBIDS)
    assert server.outcome()[0] is S.OPTED_OUT_ROBOTS_TXT
    assert len(server.asked_at) == 2
    assert 0.5 <= server.asked_at[1] - server.asked_at[0] <= 1.5


@pytest.mark.parametrize("failure", PASSING)
def test_robots_txt_that_cannot_be_read_is_no_opt_out(failure: Callable[[], Answer]) -> None:
    server = Server(failure())
    assert server.outcome(retries=3)[0] is S.ROBOTS_UNREACHABLE
    assert len(server.asked_at) == 4  # for both links together


def test_the_message_says_why_it_cannot_be_read() -> None:
    assert Server(PolicyFile(503, b"")).outcome() == (S.ROBOTS_UNREACHABLE, "503")
    assert Server(LinkFailed(S.TIMEOUT, "idle")).outcome() == (S.ROBOTS_UNREACHABLE, "timeout idle")
    assert Server(OtherHostFailed(S.DNS_FAILED)).outcome() == (S.ROBOTS_UNREACHABLE, "redirect: dns_failed")


def test_retry_after_is_waited_for_unless_it_is_too_long() -> None:
    server = Server(PolicyFile(503, b"", 10.0), ALLOWS)
    assert server.outcome()[0] is S.SUCCESS
    assert server.asked_at[1] - server.asked_at[0] >= 10
    server = Server(PolicyFile(429, b"", 3_600.0), ALLOWS)
    assert server.outcome()[0] is S.ROBOTS_UNREACHABLE
    assert len(server.asked_at) == 1


def test_a_dead_host_is_the_outcome_of_its_links() -> None:
    server = Server(LinkFailed(S.CONNECT_FAILED))
    assert server.outcome()[0] is S.CONNECT_FAILED


def test_a_loop_of_redirects_forbids_nothing() -> None:
    assert Server(LinkFailed(S.TOO_MANY_REDIRECTS)).outcome()[0] is S.SUCCESS


@pytest.mark.parametrize(
    "failure", [OtherHostFailed(S.CONNECT_FAILED), OtherHostFailed(S.DNS_FAILED), LinkFailed(S.TIMEOUT)]
)
def test_tdmrep_that_cannot_be_read_reserves_nothing(failure: LinkFailed) -> None:
    assert Server(ALLOWS, tdmrep=failure).outcome()[0] is S.SUCCESS


@pytest.mark.parametrize("status", [200, 203, 206])
def test_tdmrep_of_any_success_is_obeyed(status: int) -> None:
    body = b'\xef\xbb\xbf[{"location": "/", "tdm-reservation": 1}]'
    assert Server(ALLOWS, tdmrep=PolicyFile(status, body)).outcome()[0] is S.OPTED_OUT_TDM


def test_a_file_that_is_cut_off_ends_with_its_last_whole_line() -> None:
    head = b"User-agent: *\nDisallow: /private/\n"
    body = head + b"#" * (MAX_POLICY_FILE_BYTES - len(head) - 12) + b"\nDisallow: /"
    assert len(body) == MAX_POLICY_FILE_BYTES
    assert Server(PolicyFile(200, body)).outcome()[0] is S.SUCCESS
    assert (
        Server(PolicyFile(200, body)).outcome("http://a.example/private/1.jpg")[0] is S.OPTED_OUT_ROBOTS_TXT
    )


def test_files_that_are_cut_off_hide_nothing() -> None:
    assert Server(PolicyFile(200, ALL.encode(), cut_off=True)).outcome()[0] is S.ROBOTS_UNREACHABLE
    assert Server(PolicyFile(404, ALL.encode(), cut_off=True)).outcome()[0] is S.SUCCESS
    tdmrep = PolicyFile(200, f"[{RESERVED}, {{".encode(), cut_off=True)
    assert Server(ALLOWS, tdmrep=tdmrep).outcome()[0] is S.OPTED_OUT_TDM


def test_a_robots_txt_that_is_compressed_without_a_label_counts_only_as_a_whole() -> None:
    zipped = gzip.compress(f"{ALL}Disallow: /".encode())
    assert Server(PolicyFile(200, zipped)).outcome()[0] is S.OPTED_OUT_ROBOTS_TXT
    for damaged in (zipped[:-12], zipped[:12] + bytes(20)):
        assert Server(PolicyFile(200, damaged)).outcome()[0] is S.ROBOTS_UNREACHABLE


ROBOTS_PATTERNS = "".join(f"Disallow: /*/{n:06}/\n" for n in range(1_000))
FEW_LONG_PATTERNS = "".join(f"Disallow: /{'*a' * 40}{n}\n" for n in range(100))
TDM_PATTERNS = json.dumps([{"location": f"/*/{n:06}/", "tdm-reservation": 1} for n in range(1_000)]).encode()


@pytest.mark.parametrize(
    ("robots", "tdmrep"),
    [(ALL + ROBOTS_PATTERNS, b"[]"), (ALL + FEW_LONG_PATTERNS, b"[]"), (ALL, TDM_PATTERNS)],
    ids=["robots.txt", "few lines", "tdmrep.json"],
)
def test_slow_rules_are_matched_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, robots: str, tdmrep: bytes
) -> None:
    threads: list[Callable[..., object]] = []
    run_sync = trio.to_thread.run_sync

    async def counted(function: Callable[..., object], *args: object) -> object:
        threads.append(function)
        return await run_sync(function, *args)

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    server = Server(PolicyFile(200, robots.encode()), tdmrep=PolicyFile(200, tdmrep))
    assert server.outcome()[0] is S.SUCCESS
    assert [function.__name__ for function in threads].count("refusal") == 2
