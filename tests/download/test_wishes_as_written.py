"""Wishes of owners in all the ways in which files and headers have them: each table names all that fail.

test_robots.py has the cases with their sources; here are other spellings, encodings, blanks and places of the
same wishes, which no owner takes back by a mistake.
"""

import struct
import unicodedata
import zlib
from base64 import b64encode

from laion_etl.download.content_opt_out import (
    forbids_training,
    opted_out_by_header,
    opted_out_by_metadata,
    reserved_by_header,
)
from laion_etl.download.robots_rules import parse_robots_txt
from laion_etl.download.tdmrep import is_reserved, parse_tdmrep

ALL, OURS, OTHERS = "User-agent: *\n", "User-agent: FooBot\n", "User-agent: BarBot\n"
FORBIDS = ALL + "Disallow: /"
UMLAUT, IN_UTF8, IN_LATIN1 = "/gr\u00f6\u00dfe", "/gr%C3%B6%C3%9Fe/1.jpg", "/gr%F6%DFe/1.jpg"
HYPHENS = "\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d "
BLANKS = (
    "\xa0\xad\u061c\u1680\u180e\u2003\u2009\u200b\u200e\u200f\u202a\u202f\u205f\u2060\u3000\ufe0f\x01\x08\x7f"
)
LINE_ENDS = ("\n", "\r", "\r\n", "\n\r", "\r\r\n", "\x0b", "\x0c", "\x1e", "\u0085", "\u2028", "\u2029")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
USER_AGENTS = [
    "user-agent",
    "User-agents",
    "Useragents",
    "User_Agent",
    "User.agent",
    "User--agent",
    "User - agent",
    "User:agent",
    "User: agent",
    "-User-agent",
    "User-Agent-",
    "User-agant",
    "User-agen",
    "Usar-agent",
    "user-agnet",
    "Users-agent",
    "Uesr-agent",
    "Useer-agent",
]
DISALLOWS = [
    "disallow",
    "Disallowed",
    "Disallows",
    "Disalllow",
    "Dis-allow",
    "Dis allow",
    "Dis_allow",
    "Dis:allow",
    "Disllow",
    "Dsallow",
    "Disallo",
    "Disalliw",
    "Diasallow",
    "Dissallow",
    "Dissalow",
    "Dissalllow",
    "Dissalowed",
    "Disallow-",
    "-Disallow",
    "*Disallow",
    "Disall0w",
    "Dislallow",
    "Disallov",
    "Disalloww",
    "dis\xe1llow",
    "Disallow all",
    "Disallow:",
]
EVERYONE = [
    "*",
    "'*'",
    "\u201c*\u201d",
    "\u2018*\u2019",
    "\xab*\xbb",
    "`*`",
    "**",
    "*;",
    "*:",
    "*.",
    "(*)",
    "[*]",
    "<*>",
    "*/*",
    "*.*",
    "*\\",
    "\uff0a",
    "*?",
    "*/1.0",
    "*|",
    "*!",
    "* (all)",
    "*(all robots)",
    "* - all",
    "* /* all */",
    "/*",
    "all *",
    "BarBot (x), *",
    "*^M",
    "*=any",
    "*:any",
    "*\\r",
    "BarBot/* *",
    "all",
    "ALL",
    "any",
    "Everyone",
    "all robots",
    "any user-agent",
    "'all'",
    "(all)",
]
EVERYONE += [
    "",
    *"\u2217\u204e\u2731\u066d\u2605",
    "all bots",
    "every crawler",
    "AI",
    "all AI bots",
    "AI crawlers",
]
EVERYONE += ["%2A", "%2a", "&#42;", "&#x2a;", "&#X2A;", "&ast;", "BarBot, %2A", "+ACo-"]
NAMES = [
    "FooBot;",
    "\u201cFooBot\u201d",
    "[FooBot]",
    "<FooBot>",
    "(FooBot)",
    "BarBot|FooBot",
    "BarBot+FooBot",
    "BarBot & FooBot",
    "BarBot and FooBot",
    "FooBot (BarBot)",
    "BarBot (x) FooBot",
    "@FooBot",
    "*FooBot*",
    "BarBot (+http://x), FooBot/1",
    "+FooBot",
    "-FooBot",
    "\uff26\uff4f\uff4f\uff22\uff4f\uff54",
    "foo-bot",
    "BarBot\u3001FooBot",
    "BarBot\uff0cFooBot",
    "Foo_Bot",
    "User-agent: FooBot",
    "*/FooBot",
    "*!FooBot",
    "FooBot /* ours */",
    "BarBot/* BazBot/* FooBot/*",
    "BarBot/* foobot",
]
NAMES += ["Foo Bot", "Foo  Bot", "FooBot\u2122", "Foo \u2013 Bot", "FooBot.", "FooBot.*", "Foo.Bot, FooBot."]
NAMES += ["Foo%42%6ft", "%46oo%42%6ft", "&#70;ooBot", "%2ABot", "Foo%2A", "Foo&#66;&#111;t/1.0", "Foo%2DBot"]
NAMES += ["*FooBot", "*Bot", "*bot*", "Foo*", "F*t", "BarBot, *oobot", "foo-*", '"*bot"']
# Whatever these mean, they permit FooBot nothing.
NOT_FOR_SURE = [
    "*!FooBot",
    "*/FooBot",
    "!FooBot",
    "-FooBot",
    "~FooBot",
    "^FooBot",
    "?FooBot",
    "not FooBot",
    "all but FooBot",
    "* except FooBot",
    "*, except FooBot",
    "*; not FooBot",
    "everyone, -FooBot",
    "BarBot FooBot",
    "BarBot and FooBot",
    "(FooBot)",
    "*FooBot",
    "*FooBot*",
    "*bot",
    "Foo*",
    "*.*",
    "**",
    "*!",
    "*?",
    "*=any",
    "/*",
    "all *",
]
NAMES_LIKE_OURS = ["*bot", "*FooBot", "Foo*", "*oobo*", "BarBot FooBot", "-FooBot", "all but FooBot"]
FOR_SURE = [
    "FooBot",
    "FOOBOT",
    "foo-bot",
    "FooBot/1.0",
    "FooBot*",
    "'FooBot'",
    "FooBot (+http://a.example)",
    "BarBot, FooBot",
    "BarBot (x); FooBot/2",
    "FooBot and others",
    "Mozilla/5.0 (compatible; FooBot/1.0; +http://a.example)",
    "\uff26\uff4f\uff4f\uff22\uff4f\uff54",
]
IN_ONE = [
    "Disallow: /",
    "User: *\nDisallow: /",
    "User-agent: *%0D%0ADisallow: /",
    "User-agent: *%0aDisallow: /",
    "User-agent: *&#10;Disallow: /",
    "User-agent: *&lt;br&gt;Disallow: /",
    "User-agent: * Disallow: /",
    "User-agent: *, Disallow: /",
    "User-agent: *; Disallow: /",
    "User-agent: *Disallow: /",
    "User-agent: *\\nDisallow: /",
    "User-agent: *\\r\\nDisallow: /\\r\\n",
    "User-agent: *\\nCrawl-delay: 10\\nDisallow: /",
    "User-agent: *\\rCrawl-delay: 10\\rDisallow: /",
    "User-agent: *\\n\\nDisallow: /",
    "User-agent: *\\r\\n\\r\\nDisallow: /",
    "User-agent: *\\n Host: x\\n Disallow: /",
    '"User-agent: *\\nDisallow: /\\n"',
    "User-agent: *\\nDisallow: \\news: all\\nDisallow: /",
    "User-agent: *<br>Disallow: /<br>",
    "<pre>User-agent: *\nDisallow: /</pre>",
    '"User-agent: *\nDisallow: /"',
    "<html><body><p>User-agent: *</p>\n<p>Disallow: /</p>",
    '"User-agent: *"\n"Disallow: /"',
    '{\n"User-agent": "*",\n"Disallow": "/",\n}',
    '{\n"User-agent": "*",\n"Disallow": ["/"],\n}',
    """User-agent: '*',\nDisallow: '/a','/',""",
    "> User-agent: *\n> Disallow: /",
    "- User-agent: *\n- Disallow: /",
    "1. User-agent: *\n2. Disallow: /",
    "\u2022 User-agent: *\n\u2022 Disallow: /",
    "// x\nUser-agent: *\nDisallow: / // all",
    "/* x */ User-agent: *\nDisallow: / /* all */",
    "; x\nUser-agent: *\nDisallow: / ; all",
    "User-agent; *\nDisallow; /",
    "User-agent\uff1a *\nDisallow\uff1a /",
    "User-agent. *\nDisallow. /",
]
BEFORE = ("\u00ef\u00bb\u00bf", "\ufeff\ufeff", "\ufffd", "\x1a", "\ufffe")
VALUES = [
    ("%2F", "/x"),
    ("%2fa", "/a/x"),
    ("^/a", "/a/x"),
    ("\u201c/\u201d", "/x"),
    ("\u2018/a\u2019", "/a"),
    ("`/a`", "/a"),
    ("\u00ab/\u00bb", "/x"),
    ("[/a]", "/a"),
    ("\\", "/x"),
    ("\\a\\", "/a/x"),
    ("./a", "/a"),
    ("../a", "/a"),
    ("/./a", "/a"),
    ("/b/../a", "/a"),
    ("/a (see /)", "/a/x"),
    ("/a /* see / */", "/a/x"),
    ("/a and /b", "/b"),
    ("/b /", "/x"),
    ("all /", "/x"),
    ("all of /", "/x"),
    ("/b, /a and /c", "/a/x"),
    ("/b, a, /c", "/a/x"),
    ("b/; a/", "/a/x"),
    ("/a, and all below it", "/a/x"),
    ("a, and all below it", "/a/x"),
    ("; /a", "/a"),
    (".", "/x"),
    ("..", "/x"),
    ("/;", "/x"),
    ("/a;", "/a"),
    ("/a,", "/a"),
    ("/a/ (all)", "/a/x"),
    ("/ all", "/x"),
    ("/ - all", "/x"),
    ("/a/|/b/", "/b/x"),
    ("/a/;/b/", "/b/x"),
    ("'/a' '/b'", "/b"),
    ('"/a", "/b"', "/b"),
    ("/a\uff0c/b", "/b"),
    ("/a\u3001/b", "/b"),
    ("/a\u3000/b", "/b"),
    ("\uff0f", "/x"),
    ("\uff0fa", "/a"),
    ("//foo.example/a/", "/a/x"),
    ("www.foo.example/a", "/a"),
    ("http:/foo.example/a", "/a"),
    ("https:foo.example/a", "/a"),
    ("=/a", "/a"),
    (": /a", "/a"),
    ("\uff1a/a", "/a"),
    ("/a<br>", "/a"),
    ("/a?b&amp;c", "/a?b&c"),
    (UMLAUT, IN_LATIN1),
    (unicodedata.normalize("NFD", UMLAUT), IN_UTF8),
    (UMLAUT, "/gro%CC%88%C3%9Fe/1.jpg"),
    ("/gr&ouml;&szlig;e", IN_UTF8),
    (UMLAUT + "*", IN_UTF8),
    ("/\u0444", "/%D1%84"),
    ("/.git", "/.git/x"),
    ("/a.b", "/a.b"),
    ("//", "//a"),
    ("/*;", "/a;b"),
    ("[/b],  [/a]", "/a"),
    ("/a^M", "/a/x"),
    ("/b,  /a/ (all)", "/a/x"),
    ("\\news:", "/news:"),
    ("/a\\nHost: x", "/a/x"),
]
VALUES += [(word, "/x") for word in ("all", "ALL", "'all'", "everything", "yes", "true", "\u2215", "\u2044")]
VALUES += [("www.foo.example", "/x"), ("\u2044a\u2044", "/a/x")]
VALUES += [
    ("/a/.*", "/a/x"),
    ("/a/.*$", "/a/x"),
    ("/a/.+", "/a/x"),
    ("/a/.*?", "/a/x"),
    ("/a/(.*)", "/a/x"),
    ("/(.*)", "/x"),
    ("^/a/.*$", "/a/x"),
    ("^/.*", "/x"),
    ("^.*$", "/x"),
    (".*\\.jpg", "/a/x.jpg"),
    ("/.*\\.jpg$", "/a/x.jpg"),
    ("/.*.jpg$", "/a/x.jpg"),
    ("/a\\.jpg", "/a.jpg"),
    ("\\/a\\/", "/a/x"),
    ("/a/[^/]*", "/a/x"),
    ("/a/[^/]+/b", "/a/x/b"),
    ("/b, /a/.*", "/a/x"),
    ("/.*", "/.git"),
    ("/a/.*", "/a/.git"),
    ("&#47;", "/x"),
    ("&#x2F;a", "/a"),
    ("&sol;a", "/a"),
]
NOT_THE_SITE = [
    ";",
    ",",
    "/a (see /)",
    "/a (/)",
    "/a see /",
    "/a // not /",
    "/a /* not /b */",
    "/a, not /",
    "/a; see /",
    "/a,  but not /",
    "/a;\t but not /",
    "/a, (see /)",
    "/a, [see /]",
]
NOT_EVERYONE = [
    "bot*",
    "*foo",
    "B*t",
    "*/bad",
    "*/bad/1.0",
    "*!bad",
    "*.bad",
    "*?bad",
    "BadBot /* evil */",
    "BadBot /* evil",
    "BadBot /** evil **/",
    "BadBot // not *",
]
STILL_ALLOWED: list[tuple[str | bytes, str]] = [
    (OURS + "Disallow: /.", "/x"),
    (OURS + "Disallow: //", "/x"),
    (OURS + "Disallow: /*;", "/x"),
    (OURS + "Disallow: //index.php/", "/x"),
    (OURS + "Disallow: /a.b", "/a"),
    (OURS + 'Disallow: ""', "/x"),
    (OURS + "Disallow: //foo.example/a/", "/b"),
    (OURS + "Disallow: /a/ (all)", "/b"),
    *((f"{OURS}Disallow: {value}", "/x") for value in NOT_THE_SITE),
    *((f"User-agent: {name}\nDisallow: /", "/x") for name in NOT_EVERYONE),
    *((f"{OURS}Disallow: {value}", "/x") for value in ('/*"', "/*'", "/(", "/<", "/*&quot;")),
    (OURS + "Disallow: /.*", "/x"),
    (OURS + "Disallow: /.*$", "/x"),
    (OURS + "Disallow: /*/.*", "/a/x"),
    (OURS + "Disallow: /a/.*", "/ab"),
    (OURS + "Disallow: /a.*", "/ab"),
    (OURS + "Disallow: /.*\\.json$", "/x.jpg"),
    (OURS + "Disallow: /a?b&copy=1", "/a?b"),
    (OURS + "Disallow: /a+b", "/b"),
    ("User-agent: %2ABot2\nDisallow: /", "/x"),
    ("Deny: /", "/x"),
    (ALL + "# Disallow: /", "/x"),
    (ALL + "// Disallow: /", "/x"),
    (ALL + "<!-- Disallow: / -->", "/x"),
    (ALL + "Disallow: /a # User-agent: FooBot Disallow: /", "/x"),
    (OTHERS + "Disallow: /", "/x"),
    ("User-agent: BarBot Disallow: /", "/x"),
    ("User-agent: *Bot2\nDisallow: /", "/x"),
    (ALL + "Disavow: /", "/x"),
    (ALL + "Disable: /", "/x"),
    (ALL + "Do not disallow: /", "/x"),
    ("User: *\nDisallow: /\n" + OTHERS + "Disallow: /", "/x"),
    ("User-agent: \u767e\u5ea6\nDisallow: /", "/x"),
    (OTHERS + "AI-Training: no\n" + OURS + "Allow: /", "/x"),
    (ALL + "AI-Training: yes", "/x"),
    (ALL + "NoAI: false", "/x"),
    (ALL + "NoAI: /a\nAllow: /", "/x"),
    (ALL + "Content-Signal: ai-train, no-search", "/x"),
    (ALL + "Content-Signal: note=none, ai-train=yes", "/x"),
    (OURS + "Disallow: /all", "/x"),
    (OURS + "Disallow: /yes", "/x"),
    ("User-agent: airbot\nDisallow: /", "/x"),
    ("User-agent: Foo Bar Bot\nDisallow: /", "/x"),
    ("<html>User-agent: BarBot<br>Disallow: /", "/x"),
    (OURS + "Disallow: /\nAllow: /%61", "/a"),
    (ALL + "Disallow: /\nUser-agent: FooBot/2\nDisallow:", "/x"),
    (ALL + "Content-Signal: search=yes, ai-train=yes", "/x"),
    (OTHERS + "Content-Signal: ai-train=no", "/x"),
    (ALL + "Content-Signal: search=no\nAllow: /", "/x"),
    (ALL + "Content-Usage: /a train-ai=n", "/b"),
    (ALL + "Disallow: /\nAllow: /b/\nContent-Usage: /a/c train-ai=n", "/b/x"),
    (ALL + "Content-Signal: ai-train=no\n" + OURS + "Allow: /", "/x"),
]
TRAINING = [
    (ALL + "Content-Signal: ai-train=no\nAllow: /", "/x"),
    ("Content-Signal: ai-train=no\n" + ALL, "/x"),
    (ALL + "Content-Signal: search=yes,ai-train=no\nAllow: /", "/x"),
    (ALL + "content-usage: train-ai=n", "/x"),
    (OURS + "Content-Signals: ai-train = no\nAllow: /*", "/x"),
    (ALL + "Content-Usage: /a train-ai=n", "/a"),
    (ALL + "Allow: /\nContent-Usage: / train-ai=n", "/x"),
    (ALL + "Allow: /a/b\nContent-Usage: /a train-ai=n", "/a/b"),
    (ALL + "Allow: /*/b\nContent-Usage: /a\ttrain-ai=n", "/a/b"),
    (ALL + "Allow: /\nContent-Usage: bots=n Content-Usage: /b train-ai=y", "/x"),
    (ALL + "Content-Usage: bots=n\\nContent-Usage: /b train-ai=y", "/x"),
]
TRAINING += [
    (f"{ALL}Allow: /\n{line}", "/x")
    for line in (
        "Content-Usage: ai=n",
        "NoAI: /",
        "noai: true",
        "noai",
        "No-AI-Training: 1",
        "AI-Training: no",
        "AI-Train: n",
        "ai-train=no",
        "Train-AI: ?0",
        "AI_Training = disallowed",
        "Allow-AI-Training: no",
        "AllowAITraining: false",
        "Disallow-AI: /",
        "DisallowTDM: /",
        "Disallow-Data-Mining: /",
        "Usage: train-ai=n",
        "AI-Usage: train-ai=n",
        "Content-Policy: ai-train=no",
        "Content-Signal ai-train=no",
        "Content-Signal: ai-train no",
        "Content-Signal: ai-train=off",
        "Content-Signal: ai-train=never",
        "Content-Signal: ai-train=reserved",
        "Content-Signal: !ai-train",
        "Content-Signal: no-ai-train",
        "Content-Signal: noai, search=yes",
        "Content-Usage: no training",
        "Content-Usage: search=y, ai=n",
        "Content-Signal: ai-train: no",
        "Content-Signal: ai_train=no",
        "Content-Usage: train_ai=n",
        "Content-Usage: train-ai=deny",
        "Content-Signal: ai-train=\u201cno\u201d",
        "Content-Usag: train-ai=n",
        "Content-Signl: ai-train=no",
        "Contents-Usage: train-ai=n",
        "DisallowAITraining: /",
        "Disallow-AI-Training: /x",
        "DisallowAITrainning: /",
        "Disallow-training: *",
    )
]
TRAINING += [
    (f"{ALL}Allow: /\n{line}", "/x")
    for line in (
        "TDM-Reservation: 1",
        "tdm-reservation: true",
        "TDM_Reservation = 1",
        "tdm reservation: 1",
        "TDM-Reservations: 1",
        "TDM-Reserved: yes",
        "TDM-Reservaton: 1",
        "TDM-Reservation: 1 # all",
        "X-Robots-Tag: noai, noimageai",
        "X-Robots-Tag: noindex",
        "Robots-Tag: noai",
        "Content-Signal: ai-input=no",
        "Content-Signal: search=yes, ai-input=no",
        "Content-Signal: ai_input=no",
        "Content-Usage: ai-use=n",
        "Content-Usage: ai-use=no, search=y",
        "Content-Usage: ai-output=n",
        "Content-Signal: ai-input: no",
        "Content-Signal: genai-use=no",
    )
]
TRAINING += [
    ("TDM-Reservation: 1\n" + ALL + "Allow: /", "/x"),
    ("TDM-Reservation: 1", "/x"),
    (OURS + "TDM-Reservation: 1\nAllow: /", "/x"),
    ("X-Robots-Tag: noai\n\n" + ALL + "Disallow:", "/x"),
    ("Content-Signal: ai-input=no\n" + ALL, "/x"),
]
STILL_ALLOWED += [
    (ALL + "TDM-Reservation: 0\nAllow: /", "/x"),
    (ALL + "TDM-Reservation:\nAllow: /", "/x"),
    (ALL + "TDM-Policy: https://a.example/1", "/x"),
    (ALL + "X-Robots-Tag: all", "/x"),
    (OTHERS + "TDM-Reservation: 1\n" + OURS + "Allow: /", "/x"),
    (ALL + "Content-Signal: ai-input=no, ai-train=yes", "/x"),
    (ALL + "Content-Signal: search=yes, ai-train=yes, ai-input=no", "/x"),
    (ALL + "Content-Usage: ai-use=n, train-ai=y", "/x"),
    (ALL + "Content-Signal: ai-input=yes", "/x"),
    (ALL + "Content-Signal: x-ai-input=no", "/x"),
]
TRAINING += [("DisallowAITraining: /\nUser-agent: *\nAllow: /", "/x")]
STILL_ALLOWED += [
    (ALL + "DisallowAITraining: /a\nAllow: /b", "/b"),
    (ALL + "DisallowAITraining:\nAllow: /", "/x"),
    (ALL + "AllowAITraining: /", "/x"),
    (OTHERS + "DisallowAITraining: /\n" + OURS + "Allow: /", "/x"),
    (ALL + "Content-Usage: ai=y", "/x"),
    (ALL + "Content-Usage: search-ai=n", "/x"),
    ("User-agent: allbot\nDisallow: /", "/x"),
    ("User-agent: any bar\nDisallow: /", "/x"),
]
NOT_PERMITTED = [
    "Allows: /",
    "Allowed: /",
    "Alow: /",
    'Allow: "/"',
    "Allow: http://foo.example/",
    "Allow: /y /",
]


CHINESE = "# \u672c\u7ad9\u7684\u56fe\u7247\u4e0d\u5f97\u7528\u4e8e\u8bad\u7ec3\n"
UTF_7 = [
    b"+/v8-User-agent: *\nDisallow: /",
    b"+/v8-User-agent: +ACo-\r\nDisallow: /",
    b"+/v8-User-agent: +ACo\r\nDisallow: +AC8",
    "\ufeffUser-agent: *\nDisallow: /\n".encode("utf-7"),
    b"User-agent: +ACo-\nDisallow: /",
    b"User-agent: +ACo-\nDisallow: +AC8-",
    b"+ACM- x\nUser-agent: +ACo-\nDisallow: /\nDisallow: /a+b",
]


def refused(found: list[tuple[str | bytes, str]], *, allowed: bool) -> list[tuple[str | bytes, str]]:
    """Returns the cases in which FooBot may fetch a path, or may not."""
    bodies = [(text.encode() if isinstance(text, str) else text, text, path) for text, path in found]
    return [
        (text, path)
        for body, text, path in bodies
        if parse_robots_txt(body, "FooBot").allows(path) is allowed
    ]


def test_a_disallow_is_obeyed_however_it_is_written() -> None:
    cases: list[tuple[str | bytes, str]] = [(mark + FORBIDS, "/x") for mark in BEFORE]
    for encoding in ENCODINGS:
        cases += [(FORBIDS.encode(encoding), "/x"), (("\ufeff" + FORBIDS).encode(encoding), "/x")]
        cases.append((f"{ALL}Disallow: {UMLAUT}".encode(encoding), IN_UTF8))
        cases.append((f"{CHINESE * 20}{ALL}Disallow: {UMLAUT}".encode(encoding), IN_UTF8))
        cases.append((f"\ufeff{CHINESE * 20}{FORBIDS}".encode(encoding), "/x"))
    cases += [(mark + FORBIDS.encode(), "/x") for mark in (b"\xff\xfe", b"\xfe\xff")]
    cases += [(mark + (CHINESE + FORBIDS).encode(), "/x") for mark in (b"\xff\xfe", b"\xfe\xff")]
    cases += [(body, "/x") for body in UTF_7]
    cases += [(FORBIDS.replace("\n", end) + end, "/x") for end in LINE_ENDS]
    for blank in BLANKS:
        cases += [(f"User-agent:{blank}*{blank}\nDisallow:{blank}/{blank}", "/x")]
        cases += [(f"{blank}User-agent: *\n{blank}Disallow: /", "/x")]
    cases += [(b"\xa0User-agent:\xa0*\xa0\n\xa0\xa0Disallow:\xa0/\xa0", "/x")]
    cases += [(f"User{hyphen}agent: *\nDisallow: /", "/x") for hyphen in HYPHENS]
    cases += [(f"{name}: *\nDisallow: /", "/x") for name in USER_AGENTS]
    cases += [(f"{ALL}{name}: /", "/x") for name in DISALLOWS]
    cases += [(f"User-agent: {name}\nDisallow: /", "/x") for name in EVERYONE + NAMES]
    cases += [(text, "/x") for text in IN_ONE]
    cases += [(f"{OURS}Disallow: {value}", path) for value, path in VALUES]
    cases += [((OURS + f"Disallow: {UMLAUT}").encode("latin-1"), path) for path in (IN_UTF8, IN_LATIN1)]
    cases += [(f"{OURS}Disallow: /\n{line}", "/x") for line in NOT_PERMITTED]
    assert refused([*cases, *TRAINING], allowed=True) == []


def test_a_group_that_may_not_be_ours_permits_nothing() -> None:
    groups = [f"User-agent: {name}\nAllow: /\n" for name in NOT_FOR_SURE]
    cases: list[tuple[str | bytes, str]] = [(f"{group}\n{FORBIDS}", "/x") for group in groups]
    cases += [(f"{FORBIDS}\n\n{group}", "/x") for group in groups]
    cases += [(f"User-agent: {name}\nDisallow: /a\n\n{FORBIDS}", "/x") for name in NOT_FOR_SURE]
    cases += [(f"{OURS}Disallow: /\n\nUser-agent: {name}\nAllow: /", "/x") for name in NOT_FOR_SURE]
    cases += [(f"User-agent: {name}\nDisallow: /\n\n{ALL}Allow: /", "/x") for name in NAMES_LIKE_OURS]
    cases += [(f"{ALL}Allow: /a/b\n\nUser-agent: {name}\nDisallow: /a", "/a/b") for name in NAMES_LIKE_OURS]
    assert refused(cases, allowed=True) == []


def test_a_group_for_everyone_and_for_a_name_that_may_be_ours_is_one_for_everyone() -> None:
    permitted: list[tuple[str | bytes, str]] = []
    forbidden: list[tuple[str | bytes, str]] = []
    for name in NAMES_LIKE_OURS:
        for agents in (f"{ALL}User-agent: {name}\n", f"User-agent: {name}\n{ALL}"):
            group = f"{agents}Disallow: /\nAllow: /a\n"
            permitted += [(group, "/a"), (f"{group}\n{OTHERS}Disallow: /", "/a")]
            forbidden += [(group, "/x"), (f"{group}\n{ALL}Disallow: /a/", "/a/x")]
            # Where another group is ours, it is a name that may be ours and permits nothing.
            forbidden += [(f"{group}\n{OURS}Disallow: /a", "/a"), (f"{OURS}Disallow: /b\n\n{group}", "/x")]
    assert refused(permitted, allowed=False) == []
    assert refused(forbidden, allowed=True) == []


def test_a_group_that_is_ours_permits_what_it_says() -> None:
    cases: list[tuple[str | bytes, str]] = [
        (f"User-agent: {name}\nAllow: /\n\n{FORBIDS}", "/x") for name in FOR_SURE
    ]
    cases += [(f"{FORBIDS}\nAllow: /a\n\nUser-agent: *!FooBot\nAllow: /", "/a")]
    assert refused(cases, allowed=False) == []


def test_what_forbids_nothing_still_forbids_nothing() -> None:
    assert refused(STILL_ALLOWED, allowed=False) == []


TAGS = [
    "nogenai",
    "no-genai",
    "noaiml",
    "noaiimages",
    "no-ai-images",
    "notdm",
    "nollm",
    "nogenaitraining",
    "DisallowAITraining",
    "disallow-ai-training",
    "no index",
    "no ai",
    "no image ai",
    "no_index",
    "noaitraining",
    "noai-training",
    "notrain",
    "notraining",
    "noimageml",
    "GPTBot, CCBot: noai",
    "a: nofollow, b: noai, c: all",
    "(noindex)",
    "noindex%2C nofollow",
    "robots=noindex",
    "noindex&nofollow",
    "noindex\\n",
    "\u00ef\u00bb\u00bfnoindex",
    "noindex\u0085",
    "unavailable_after: 2010-06-25",
    "otherbot: unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT",
    "unavailable_after: Friday, 25-Jun-10 15:00:00 GMT",
    "unavailable_after: 25-Jun-2010 15:00:00 EST",
    "noarchive, unavailable_after: 2010-06-25T15:00:00+02:00",
    "Unavailable-After: 25 June 2010",
    "unavailable_after: 2099-01-01, noai",
    "unavailable_after: yesterday",
    "unavailable_after: 25 Jun 99999999999999999999 15:00:00 GMT",
]
TAGS += [
    "ai-train=no",
    "train-ai=n",
    "DisallowAI",
    "disallow-training",
    "ai-training: disallow",
    "tdm-reservation: 1",
    "tdm=n",
    "opt-out",
    "ai-opt-out",
    "opted out",
    "noai&#44;noimageai",
    "all: noai",
    "max-image-preview: none noindex",
]
OTHER_TAGS = [
    "tdm-reservation: 0",
    "ai-train=yes",
    "opt-in",
    "max-image-preview=none",
    "noarchive",
    "AllowAITraining",
    "noaisle",
    "notdmx",
    "max-image-preview:none, max-snippet: 0",
    "max_image_preview:none",
    "maximagepreview:none",
    "noodp, noydir",
    "max-image-preview:'none'",
    "index, follow, max-image-preview:large, max-snippet:-1",
    "notranslate",
    "noimage",
    "indexifembedded",
    "nocache",
    "index no follow",
    "follow, no, index",
    "notrainer",
    "unavailable_after: 25 Jun 2099 15:00:00 PST",
    "unavailable_after: 2099-01-01",
    "unavailable_after: 1 Jan 2099",
]


def test_directives_of_headers() -> None:
    assert [tag for tag in TAGS if not opted_out_by_header([tag])] == []
    assert [tag for tag in OTHER_TAGS if opted_out_by_header([tag])] == []


PERMITS_NO_TRAINING = [
    "; train-ai=y",
    "; search=y, ai-train=yes",
    ", ai-train=y",
    ", train-ai=yes",
    ", train-ai=true",
    ", train-ai=?1",
    ", train-ai",
    ", train-ai=y=n",
    ", x-train-ai=y",
    ", train-genai=y",
    ", search=y;train-ai=y",
    ', x="train-ai=y"',
    ' (not "a, train-ai=y, b")',
    " /b train-ai=y",
    ", /b train-ai=y",
    " Content-Usage: train-ai=y",
    " User: x, train-ai=y",
    " train-ai=y",
]


def test_values_of_reservations_and_usage() -> None:
    reserved = [
        "1",
        "01",
        "+1",
        "1.0",
        "?1",
        "yes",
        "on",
        "TRUE",
        "tdm-reservation=1",
        "\uff11",
        "\ufeff1",
        "all",
    ]
    assert [value for value in reserved if not reserved_by_header([value])] == []
    assert [
        value for value in ("0", "?0", "no", "", "2", "10", "-1", "false") if reserved_by_header([value])
    ] == []
    forbidden = [
        "train-ai=n",
        "train-ai=\uff4e",
        "train-ai=not allowed",
        "train-ai=not-permitted",
        "training=n",
        "ai-model-training=no",
        "foundation-model-production=n",
        "ai-input=no",
        "ai-use=no",
        "ai-use=n",
        "ai_input: no",
        "search=yes, ai-input=no",
        "ai-input=no; ai-train=yes",
        "ai-input=no, ai-train",
        "ai-input=no, bots=n, ai-train=yes",
        "ai-output=n",
        "bots=y, train-ai=n",
        "ai-train=no",
        "train-ai=?0",
        'ai-train="no"',
        "tdm=n",
        "genai=n",
        "ai=n",
        "train-ai: n",
        "ai_train=no",
        "train-ai=none",
        "ai-train=disallow",
        "ai-train=\u201cno\u201d",
        "all: n",
        "bots=n",
        "bots=n, search=y",
        "all=n;exp=1",
        "bots=n, train-ai=n",
        *(f"bots=n{rest}" for rest in PERMITS_NO_TRAINING),
        *(f"all=n{rest}" for rest in PERMITS_NO_TRAINING),
        "/a train-ai=y /b bots=n",
        "train-ai=y Content-Usage: bots=n",
    ]
    assert [value for value in forbidden if not forbids_training(value)] == []
    permitted = [
        "train-ai=y",
        "ai-train=yes",
        "ai-input=no, ai-train=yes",
        "search=yes, ai-input=no, train-ai=y",
        "ai-use=n, train-ai=y",
        "ai-input=yes",
        "x-ai-input=no",
        "search=no",
        "bots=y",
        "bots=n, train-ai=y",
        "train-ai=y,bots=n",
        "/a bots=n;exp=1, search, train-ai=y;exp=1",
        "robots=n",
        "x-train-ai=n",
        "ai-train=nofollow",
        "ai-train=nonexclusive",
        "ai=y",
        "x-ai=n",
        "ai-train",
        "",
    ]
    assert [value for value in permitted if forbids_training(value)] == []


RULE = '[{"location": "/", "tdm-reservation": 1}]'
RESERVATIONS = [
    RULE,
    RULE.replace('"', "'"),
    RULE.replace('"', "\u201c"),
    RULE.replace('"', '\\"'),
    f"<pre>{RULE}</pre>",
    f"callback({RULE});",
    f")]}}',\n{RULE}",
    RULE.replace('"', "&quot;"),
    f'"{RULE}"'.replace('"', '\\"'),
    '[{"location": "/", // all\n "tdm-reservation": 1}]',
    '[{"location": "/", /* all */ "tdm-reservation": 1}]',
    '[{location: "/", "tdm-reservation": 1}]',
    "[{location: '/', tdm-reservation: 1}]",
    "tdm-reservation: 1",
    "location: /\ntdm-reservation: 1",
    "- location: /\n  tdm-reservation: 1\n",
    RULE[:-2],
    RULE + "\0",
    '[{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://a',
    f"{RULE}\n{RULE}",
    "\0" + RULE,
    *(
        RULE.replace("tdm-reservation", name)
        for name in (
            "tdmReservation",
            "tdm reservation",
            "tdm:reservation",
            "tdm\u2010reservation",
            "TDM_RESERVATION ",
        )
    ),
    *(
        RULE.replace(": 1", f": {value}")
        for value in ("[1]", '{"value": 1}', '"yes"', "01", "+1", "True", "1e0", "true", '" 1 "')
    ),
    *(
        RULE.replace('"/"', f'"{location}"')
        for location in (
            "*",
            "/*",
            " / ",
            " /images/",
            "\\\\images\\\\",
            "./images/",
            "//a.example/images/",
            "images/*",
            "/%69mages/",
            "\ufeff/",
            "/\u200b",
            "\uff0fimages",
            "[/images/]",
            "/.*",
            ".*",
            "/images/.*",
            "^/images/.+$",
            "*://*/*",
            "all",
            "/images&#47;",
            "/ (all)",
        )
    ),
    RULE.replace("location", "LOCATION"),
    '{"/images/": {"tdm-reservation": 1}}',
    *(RULE.replace(": 1", f': "{value}"') for value in ("bots=n", "train-ai=n", "tdm=n")),
    '[{"location": "/", "content-usage": "train-ai=n"}]',
    '[{"location": "/", "tdm-reservation": 0, "Content-Usage": "bots=n"}]',
]
NO_TRAINING = [
    '"content-usage": ["train-ai=n"]',
    '"content-usage": [["search=y"], ["train-ai=n"]]',
    '"content-usage": "train-ai=n", "content-usage": "search=y"',
    '"content-usage": "search=y", "content-usage": "train-ai=n"',
    '"content-usage": "search=y", "Content_Usage": "train-ai=n"',
    '"content-usage": "search=y", "content-signal": "ai-train=no"',
    '"content-usage": "bots=n", "content-signal": "ai-train=yes"',
    '"content-usage": ["bots=n", "train-ai=y"]',
    '"content-signals": "ai-train=no"',
    '"content-usage": {"train-ai": "n"}',
    '"content-usage": {"search": "y", "other": {"bots": false}}',
    '"content-signal": [{"ai-train": "no"}]',
]
RESERVATIONS += [
    f'[{{"location": "/", {before}{usage}}}, {{"location": "/", "tdm-reservation": 0}}]'
    for before in ("", '"tdm-reservation": 0, ')
    for usage in NO_TRAINING
]
RESERVATIONS += [
    "[{'location': '/', 'content-usage': 'train-ai=n'}]",
    "[{'location': '/', 'tdm-reservation': 0, 'content-usage': 'train-ai=n'}]",
    "[{'content-usage': ['search=y', 'bots=n'], 'location': '/'}]",
    "[{'location': '/', 'content-signal': 'ai-train=\"no\"'}]",
    "[{location: '/', contentUsage: 'bots=n'}]",
    "location: /\ncontent-usage: train-ai=n",
    "{'location': '/', 'content_usage': 'train-ai=n'}",
    "{'location': '/', 'tdm_reservation': 1}",
    "- location: /\n  tdm-reservation: 0\n  content-usage:\n    - search=y\n    - train-ai=n\n",
    "location: /\ncontent-usage: search=y\ncontent-signal: ai-train=no",
]
OTHERS_NOT_JSON = [
    "[{'location': '/', 'content-usage': {'train-ai': 'n'}}]",
    "[{'location': '/', 'content-usage': {'search': 'y', 'train-ai': 'n'}}]",
    "[{'content-usage': {'search': 'y', 'other': {'bots': False}}, 'location': '/'}]",
    "[{'location': '/', 'content-signal': [{'ai-train': 'no'}]}]",
    "[{location: '/', contentUsage: {bots: 'n'}}]",
    "{location: '/', rights: {contentUsage: {'train-genai': false}}}",
    "[{'location': '/', 'tdm-reservation': 0, 'content-usage': {'train-ai': 'n'}}]",
    "[{'location': '/', 'tdm-reservation': {'value': 1}}]",
    "[{'location': '/', 'tdm-reservation': {'value': 'yes'}}]",
    "[{'location': '/', 'meta': {'a': 1}, 'tdm-reservation': 1}]",
    "[{'tdm-reservation': 1, 'meta': {'a': {'b': {}}}, 'location': '/'}]",
    "[{'location': '/', 'title': 'a } b', 'tdm-reservation': 1}]",
    "[{'location': '/', 'title': 'a { b', 'tdm-reservation': 1}]",
    "[{'location': {'path': '/'}, 'tdm-reservation': 1}]",
    '[{"location": "/", "meta": {"a": 1}, "tdm-reservation": 1}, {"loc',
    '[{"location": "/", "content-usage": {"train-ai": "n"}}, {"loc',
    '[{"location": "/", "policy": {"a": 1}, "tdm-reservation": 1',
    *(f"[{{'location': '/', 'tdm-reservation': '{value}'}}]" for value in ("reserved", "on", "train-ai=n")),
    "location: /\ntdm-reservation: 1\nmeta: {}\n",
    "- location: /\n  content-usage: {search: y, train-ai: n}\n",
    "- location: /\n  content-usage:\n    search: y\n    train-ai: n\n",
    '[{"location": "/", "train-ai": "n"}]',
    '[{"location": "/", "ai-train": false, "tdm-reservation": 0}]',
    "[{'location': '/', 'train-ai': 'n'}]",
    '[{"location": "/", "preferences": {"train-genai": "n"}}]',
    "{" * 60 + "'location': '/', 'tdm-reservation': 1",
]
RESERVATIONS += OTHERS_NOT_JSON
RESERVATIONS += [
    '[{"location": "/", "tdm-reservations": 1}]',
    '[{"location": "/", "tdm_reserved": true}]',
    '[{"location": "/", "tdm": {"reservation": 1}}]',
    "[{'location': '/', 'tdm-reserved': 1}]",
    '[{"location": "/", "tdm-reservation"; 1}]',
    '[{"location": "/", "usage": "train-ai=n"}]',
    '[{"location": "/", "content-usage": {"train_ai": "n"}}]',
    '[{"location": "/", "ai-training": "disallowed"}]',
]
PAIRS = [
    '{"category": "train-ai", "value": "n"}',
    '{"value": "n", "category": "train-ai"}',
    '{"category": "ai-train", "value": "no"}',
    '{"category": "train-ai", "value": false}',
    '{"category": "bots", "value": "n"}',
    '{"category": "ai-input", "value": "no"}',
    '{"Category": "Train-AI", "Value": "N"}',
    '{"category": "train-genai", "preference": "disallow"}',
    '{"usage": "train-ai", "allowed": false}',
    '{"name": "train-ai", "permission": "denied"}',
]
SAYS_NO = [
    '"noai": true',
    '"noai": 1',
    '"noai": "yes"',
    '"no-ai": true',
    '"noimageai": true',
    '"no_training": true',
    '"robots": "noai, noimageai"',
    '"x-robots-tag": "noai"',
    '"X-Robots-Tag": ["noindex"]',
    '"directives": ["noai"]',
    '"ai": false',
    '"tdm": 1',
    '"tdm": "reserved"',
    '"tdm": {"allowed": false}',
    '"ai": {"training": "no"}',
    '"reserved": true',
    '"tdm-opt-out": true',
    '"tdmOptOut": 1',
    '"opt-out": "yes"',
    '"allow-ai-training": false',
    '"allowAiTraining": false',
    '"tdm-allowed": "no"',
    '"data-mining": "prohibited"',
    '"text-and-data-mining": false',
    '"training": false',
    '"tdm-reservation": "opt-out"',
    '"tdm-reservation": "prohibited"',
    '"genai": "no"',
    '"content-usage": "ai-use=n"',
    '"content-signal": "ai-input=no, search=yes"',
]
RESERVATIONS += [f"[{pair}]" for pair in PAIRS]
RESERVATIONS += [f'[{{"location": "/", "content-usage": [{pair}]}}]' for pair in PAIRS]
RESERVATIONS += [f'[{{"location": "/", "preferences": [{{"a": 1}}, {pair}]}}]' for pair in PAIRS]
RESERVATIONS += [f'[{{"location": "/", {one}}}]' for one in SAYS_NO]
RESERVATIONS += [f"{{{one}}}" for one in SAYS_NO]
RESERVATIONS += [
    "[{'category': 'train-ai', 'value': 'n'}]",
    "- category: train-ai\n  value: n\n",
    "{'noai': True}",
    "noai: true",
    "tdm-reservation 1",
    "<rule><location>/</location><tdm-reservation>1</tdm-reservation></rule>",
    "[{location: '/', noai: true}]",
    "[{location: '/', ai: false}]",
]
NO_RESERVATIONS = [
    '[{"category": "train-ai", "value": "y"}]',
    '[{"category": "search", "value": "n"}]',
    '[{"category": "bots", "value": "n"}, {"category": "x", "value": "y"}]'.replace("bots", "robots"),
    '[{"location": "/other/", "content-usage": [{"category": "train-ai", "value": "n"}]}]',
    '[{"location": "/other/", "noai": true}]',
    '[{"location": "/", "noai": false}]',
    '[{"location": "/", "noai": 0}]',
    '[{"location": "/", "robots": "all"}]',
    '[{"location": "/", "ai": true}]',
    '[{"location": "/", "tdm": 0}]',
    '[{"location": "/", "tdm": false}]',
    '[{"location": "/", "allow-ai-training": true}]',
    '[{"location": "/", "opt-out": false}]',
    '[{"location": "/", "training": "yes"}]',
    "<rule><location>/other/</location><tdm-reservation>1</tdm-reservation></rule>",
    "<tdm-reservation>0</tdm-reservation>",
    '[{"location": "/", "ai-generated": false}]',
    '[{"location": "/", "ai-training": null}]',
    '[{"location": "/", "name": "A", "value": "no"}]',
    '[{"location": "/", "content-signal": "ai-input=no, ai-train=yes"}]',
    "[{location: '/other/', noai: true}]",
    "noai: false",
    "- category: train-ai\n  value: y\n",
    "[{'location': '/', 'content-usage': {'bots': 'n', 'train-ai': 'y'}}]",
    "[{'location': '/other/', 'content-usage': {'train-ai': 'n'}}]",
    "[{'location': '/other/', 'meta': {'a': 1}, 'tdm-reservation': 1}]",
    "[{'location': '/', 'meta': {'a': 1}, 'tdm-reservation': 0}]",
    "[{'location': '/', 'tdm-reservation': {'value': 0}}]",
    '[{"location": "/", "train-ai": "y", "tdm-reservation": 0}]',
    '[{"location": "/", "note": "train-ai: n"}]',
    '[{"location": "/", "content-usage": ["search=n", "train-ai=y"]}]',
    '[{"location": "/", "content-usage": {"bots": "n", "train-ai": "y"}}]',
    '[{"location": "/", "content-usage": "search=y", "content-usage": "bots=n, train-ai=y"}]',
    '[{"location": "/other/", "content-usage": ["train-ai=n"]}]',
    "[{'location': '/', 'content-usage': 'bots=n, train-ai=y'}]",
    "[{'location': '/other/', 'content-usage': 'train-ai=n'}]",
    "location: /\ncontent-usage: bots=n, train-ai=y\n",
    "location: /\ncontent: train-ai=n",
    '[{"Location": "/other/", "tdm-reservation": 1}]',
    "[{'location': '/other/', 'tdm-reservation': 1}]",
    "[{'location': '/', 'tdm-reservation': 0}]",
    '[{"location": "/", "tdm-reservation": -1}]',
    '[{"location": "/", "tdm-reservation": "train-ai=y"}]',
    '[{"location": "/other/", "content-usage": "bots=n"}]',
    '<html><head><meta name="tdm-reservation" content="1"></head></html>',
    "tdm-reservation: 10",
    "",
    "location: /other/\ntdm-reservation: 1",
    '[{"location": "/IMAGES/", "tdm-reservation": 1}]',
]


def test_reservations_in_files_that_are_nearly_json() -> None:
    path, wrong = "/images/1.jpg", []
    for text in RESERVATIONS:
        encodings = ("utf-8", "utf-8-sig", "utf-16-le") if not text.startswith("\0") else ("utf-8",)
        wrong += [text for one in encodings if not is_reserved(parse_tdmrep(text.encode(one)), path)]
    wrong += [text for text in NO_RESERVATIONS if is_reserved(parse_tdmrep(text.encode()), path)]
    assert wrong == []


def in_utf_7(sign: str) -> str:
    """Returns a sign as encoders write it that take none for granted."""
    return f"+{b64encode(sign.encode('utf-16-be')).decode().rstrip('=')}-"


def test_reservations_in_utf_7() -> None:
    escaped = "".join(in_utf_7(one) if one in '[]{}"' else one for one in RULE)
    texts = [text.encode() for text in (escaped, f"+/v8-{escaped}", f"+/v8-{RULE}")]
    assert [text for text in texts if not is_reserved(parse_tdmrep(text), "/x")] == []


def test_locations_in_latin_1_are_those_of_either_encoding() -> None:
    rule = f'[{{"location": "{UMLAUT}", "tdm-reservation": 1}}]'
    found = [
        (encoding, path)
        for encoding in ("utf-8", "latin-1")
        for path in (IN_UTF8, IN_LATIN1)
        if not is_reserved(parse_tdmrep(rule.encode(encoding)), path)
    ]
    assert found == []


PLUS = b'<x plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/>'


def png(kind: bytes, body: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(kind, body) + chunk(b"IEND", b"")


def extended(xmp: bytes, at: int) -> bytes:
    """Returns the segments of a JPEG that hold a long packet in two parts."""
    name = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40
    parts = [name + xmp[:at], name + xmp[at:]]
    return b"\xff\xd8" + b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)


def c2pa(text: bytes) -> bytes:
    return b"cawg.training-mining \0" + text


OPT_OUTS = [
    PLUS,
    PLUS.replace(b"ED", b"ED-AIMLTRAINING"),
    PLUS.replace(b"DMI-P", b"DMI&#45;P"),
    PLUS.replace(b"DMI-P", b"DMI&#x2D;P"),
    PLUS.replace(b"DMI-PROHIBITED", b"dmi-prohibited"),
    *(PLUS.decode().encode(encoding) for encoding in ENCODINGS),
    *(extended(PLUS, at) for at in (5, 50, 55, 60)),
    png(b"tEXt", b"Raw profile type xmp\0\nxmp\n9\n" + PLUS.hex().encode()),
    png(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PLUS)),
    png(b"zTXt", b"x\0\0" + zlib.compress(PLUS)),
    b'<x tdm:reservation="1"/>',
    b"<tdm:reservation> 1 </tdm:reservation>",
    b"<tdm:reservation a='b'>1<",
    b"<tdm:Reservation>1</tdm:Reservation>",
    b'<x TDM:reservation="1"/>',
    b"<tdm:reservation>yes</tdm:reservation>",
    b'{"tdm:reservation": 1}',
    b'<x tdmrep:reservation="true"/>',
    b'<x tdm-reservation="1"/>',
    b'<x plus:DataMining="Prohibited"/>',
    b'<x plus:DataMining="DMI_PROHIBITED"/>',
    b"<plus:DataMining>dmi-Prohibited</plus:DataMining>",
    b"<plus:DataMining rdf:resource='http://ns.useplus.org/ldf/vocab/DMI-Prohibited'/>",
    PLUS.replace(b"DMI-P", b"DMI&#045;P"),
    PLUS.replace(b"DMI-P", b"DMI%2DP"),
    c2pa(b"c2pa.ai_training\xa1cusejnotAllowed"),
    c2pa(b"cawg.data_mining\xa1cusekconstrained"),
    c2pa(
        b'{"cawg.ai_training" : {"constraint_info": "see https://a.example/licence", "use" : "notAllowed"}}'
    ),
]
NO_OPT_OUTS = [
    PLUS.replace(b"PROHIBITED", b"ALLOWED"),
    b'<x tdm:reservation="0"/>',
    b"<tdm:reservation>0</tdm:reservation>",
    b'<x tdm:reservation="10"/>',
    b'<x plus:DataMining="DMI-UNSPECIFIED"/><x y="prohibited"/>',
    b'<x plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-ALLOWED" y="resale prohibited"/>',
    b"<dc:description>Our reservation: 1 table</dc:description>",
    c2pa(b"c2pa.ai_training\xa1cusegallowed"),
    c2pa(b'{"cawg.ai_inference":{"use":"notAllowed"}}'),
    c2pa(b'{"cawg.ai_training":{"use":"allowed"},"cawg.ai_inference":{"use":"notAllowed"}}'),
]


def test_opt_outs_in_the_metadata_of_images() -> None:
    assert [image for image in OPT_OUTS if not opted_out_by_metadata(image)] == []
    assert [image for image in NO_OPT_OUTS if opted_out_by_metadata(image)] == []
