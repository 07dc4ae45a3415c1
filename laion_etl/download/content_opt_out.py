"""Opt-outs that come with a response: in its headers, or in the image itself.

- `X-Robots-Tag: noai` and related directives (the convention of img2dataset and DeviantArt's noai/noimageai;
  noindex and noimageindex by Google's documentation of the header), separated by whatever is not a letter,
  `no-ai` like `noai`. A directive may be limited to an agent, `examplebot: noai`; we honour it whatever the
  agent: an owner who opts out of one AI crawler means us too. `unavailable_after` is noindex from its date.
- `tdm-reservation: 1` (W3C TDM Reservation Protocol, final report of May 2024).
- `Content-Usage: train-ai=n` or `bots=n` (IETF AIPREF; `ai=n` in its first drafts) and
  `Content-Signal: ai-train=no`, also as lines of robots.txt and in rules of tdmrep.json. By Cloudflare a
  signal that is not given neither grants nor restricts; but who gives only `ai-input=no` keeps images from
  models, so that counts as an opt-out from training. All of these also in the trailers of a response.
- The IPTC/PLUS property `plus:DataMining` in the image's XMP (PLUS-DMI vocabulary), `tdm:reservation` there,
  and the training and data mining assertions of C2PA and CAWG. All are found by searching for their names,
  also in UTF-16 and UTF-32 and in the compressed and hexadecimal texts of PNG; other compressed or signed
  containers are not unpacked. The entropy-coded data of a JPEG are pixels and are not searched. What people
  write in words is the matter of worded_wishes.py. `constrained` is treated as `notAllowed`: we cannot
  evaluate the constraint.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Set
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from laion_etl.download.image_texts import texts
from laion_etl.download.jpeg_segments import outside_scans
from laion_etl.download.png_chunks import chunks
from laion_etl.download.worded_wishes import forbids_in_words

_RESERVED = frozenset(
    {"1", "true", "yes", "on", "all", "reserved", "prohibited", "forbidden", "denied", "optout"}
)
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_DIRECTIVE = re.compile(
    r"(?<![a-z0-9])(?:none(?!-such)|no[\s_-]{0,3}(?:image[\s_-]{0,3})?"
    r"(?:(?:gen)?ai(?:[\s_-]{0,3}(?:ml|images?))?|index|ml|tdm|llms?|(?:(?:gen)?ai[\s_-]{0,3})?train(?:ing)?)"
    r"|disallow[\s_-]?(?:(?:gen)?ai|tdm|(?:(?:gen)?ai[\s_-]?)?train(?:ing)?)"
    r"|(?:(?:ai|tdm|training)[\s_-]?)?opt(?:ed)?[\s_-]?out|tdm[\s_-]?(?:reservation|reserved)\s*[:=]\s*(?:1|true|yes))(?![a-z0-9])"
)
_PREVIEW = re.compile(
    r"\bmax[\s_-]?(?:(?:image|video)[\s_-]?preview|snippet)\s*[:=]\s*[\"']?(?:none|standard|large|-?\d+)(?![\w-])"
)  # their "none" is a value
_UNAVAILABLE_AFTER = re.compile(r"unavailable[\s_-]?after\s*[:=]?\s*[\"']?((?:[a-z]{3,9},)?[^,;\"']{0,60})")

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_OPT_OUT = re.compile(r"opt(?:ed)?[\s_-]out", re.IGNORECASE)
# Also with a comma in place of the semicolon; a parameter of another name may say what the value should have.
_NOT_RESERVED = re.compile(
    r"[ \t]*+0(?:[ \t]*+[;,][ \t]*+(?:tdm-)?(?:policy|version|v|ttl|max-age|date|lang|charset|q)"
    r"[ \t]*+=[ \t]*+(?:\"[^\"]*\"|[^\s;,\"]*+))+[ \t]*+",
    re.IGNORECASE,
)
_MINUS_ONE = re.compile(r"-\d+")

_MAX_TEXT_BYTES, _MAX_TEXTS_BYTES = 1 << 22, 1 << 24  # of one, and of all of an image: more are a bomb
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_NO_DIGITS = re.compile(rb"[^0-9a-fA-F]+")
_MAX_NAMES = 1_000  # of one property
_PROHIBITED = re.compile(rb"DMI(?:-|&#0{0,4}45;|&#[xX]0{0,4}2[dD];|%2[dD])PROHIBITED")
_PART_OF_IT = b"PROHIBITED"  # every match has it
_WIDE = tuple(filling.join(bytes([one]) for one in b"DMI-PROHIBITED") for filling in (b"\0", b"\0\0\0"))
# XMP of more than 64 kB: segments of a JPEG with a header of a namespace, a hash and two numbers.
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENSION = re.compile(rb"\xff\xe1.." + re.escape(_EXTENDED_XMP) + rb".{40}", re.DOTALL)
# The same property with another value, and that of tdmrep.json, in any case; first what is in all spellings.
_MINING_PROPERTY, _TDM_PROPERTY = b"DataMining", b"eservation"
_MINING_PROHIBITED = re.compile(
    rb"DataMining(?:(?:[^<>\"']{0,60}[\"']){0,2}[^<>\"']{0,160}?|[^<>]{0,100}>[^<>]{0,80}?)prohibited(?![a-z])",
    re.IGNORECASE,
)
_TDM_RESERVED = re.compile(
    rb"tdm(?:rep)?[:_-]reservation(?:\s{0,9}=\s{0,9}[\"']|[\"']\s{0,9}:\s{0,9}[\"']?|[^<>]{0,100}>)"
    rb"\s{0,9}(?:1|true|yes|reserved)\b",
    re.IGNORECASE,
)
_TRAINING_ASSERTION = b"training-mining"
_NOT_ALLOWED = re.compile(
    rb"(?:ai_generative_training|ai_training|data_mining)"
    rb"(?:(?!allowed|ai_inference|ai_training|ai_generative|data_mining).){1,300}?(?:notAllowed|constrained)",
    re.DOTALL,
)
TRAINING = r"(?:train[_-]?(?:gen)?ai|(?:gen)?ai[_-]?train(?:ing)?)"
REFUSED = (
    r"(?:no?|none|not(?:[\s_-]?(?:allowed|permitted))?|off|never|negative|den(?:y|ied)|disallow(?:ed)?|forbid(?:den)?|prohibit(?:ed)?|block(?:ed)?|refused?"
    r"|reserved?|false|\?0|0)(?!\w)"
)
_IS_REFUSED = rf"\s*[=:]\s*[\"'\u201c\u2018]?{REFUSED}"
_MORE_TRAINING = r"(?:(?:ai[_-]?)?model[_-]?)?train(?:ing)?|foundation[_-]model[_-]production"
_AI_USAGE = re.compile(
    rf"(?<![\w-])(?:{TRAINING}|{_MORE_TRAINING}|(?:gen)?ai|tdm){_IS_REFUSED}|(?<![\w-]){TRAINING}\s+{REFUSED}"
    rf"|(?<![\w=-])(?:!\s?|not?[\s_-]{{0,2}})(?:{TRAINING}|(?:gen)?ai|tdm|train(?:ing)?)(?![\w-])(?!\s*=)",
    re.IGNORECASE,
)
# What training is a part of (AIPREF's "automated processing"). Only a permission that is more specific, in
# the same dictionary (RFC 9651), lifts it; so what is not a dictionary from end to end permits nothing.
_ANY_USAGE = re.compile(rf"(?<![\w-])(?:bots|all){_IS_REFUSED}", re.IGNORECASE)
# The use of images by AI models. Who refuses that and says nothing of training does not want it either.
_MODEL_USE = re.compile(
    rf"(?<![\w-])(?:gen)?ai[_-]?(?:input|use|usage|output|grounding|rag){_IS_REFUSED}", re.IGNORECASE
)
_LEADING_PATH = re.compile(r"\A\s*+/\S*+\s++")  # of a line in robots.txt
_KEY_AND_VALUE = r"[a-z][a-z0-9_.-]*+(?:=[^\s,;=\"']++)?"
_MEMBER = re.compile(rf"({_KEY_AND_VALUE})(?:; ?{_KEY_AND_VALUE})*+")
_AI_PERMITTED = "train-ai=y"
_TRAINING_PERMITTED = frozenset({_AI_PERMITTED, "ai-train=yes", "train-ai=yes", "ai-train=y"})


def opted_out_by_header(robots_tags: Iterable[str]) -> bool:
    """Whether any X-Robots-Tag header forbids the use of the image."""
    return any(_forbids(tag.lower()) for tag in robots_tags)


def _forbids(tag: str) -> bool:
    if _DIRECTIVE.search(_PREVIEW.sub(" ", tag)) is not None or forbids_training(tag):
        return True
    return any(_is_past(found[1]) for found in _UNAVAILABLE_AFTER.finditer(tag))


def _is_past(written: str) -> bool:
    """Whether a date, as Google names its forms, has passed; of one that cannot be read, the year decides."""
    text = written.strip()
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except (ValueError, IndexError, OverflowError):
            continue
        return date.replace(tzinfo=date.tzinfo or UTC) <= datetime.now(UTC)
    year = _YEAR.search(text)
    return year is None or int(year[0]) <= datetime.now(UTC).year


def forbids_training(usage: str) -> bool:
    """Whether a usage preference forbids training: `train-ai=n`, or `bots=n` without `train-ai=y`.

    Also `ai-input=no` without `ai-train=yes`.
    """
    usage = unicodedata.normalize("NFKC", usage)
    if _AI_USAGE.search(usage) is not None:
        return True
    if _ANY_USAGE.search(usage) is not None and not _permits(usage, {_AI_PERMITTED}):
        return True
    return _MODEL_USE.search(usage) is not None and not _permits(usage, _TRAINING_PERMITTED)


def _permits(usage: str, permissions: Set[str]) -> bool:
    """Whether a usage preference is a dictionary from end to end that has a permission."""
    members = [_MEMBER.fullmatch(one.strip()) for one in _LEADING_PATH.sub("", usage).split(",")]
    return None not in members and any(member and member[1] in permissions for member in members)


def reserved_by_header(reservations: Iterable[str]) -> bool:
    """Whether a tdm-reservation header reserves the rights to text and data mining."""
    return any(is_reservation(value) for value in reservations)


def is_reservation(value: str) -> bool:
    """Whether a value of tdm-reservation reserves the rights: `1`, `true` or a usage preference.

    Parameters of a 0 do not (RFC 9651, 3.1.2), such as a policy, which has a header of its own.
    """
    if forbids_training(value):
        return True
    if _NOT_RESERVED.fullmatch(value) is not None:
        return False
    value = _OPT_OUT.sub("optout", value)
    words = _SEPARATORS.split(unicodedata.normalize("NFKC", _MINUS_ONE.sub(" ", value)).lower())
    return any(word in _RESERVED or (word.isdigit() and word.lstrip("0") == "1") for word in words)


def opted_out_by_metadata(image: bytes) -> bool:
    """Whether the metadata of an image file forbids data mining or training."""
    searched = outside_scans(image) if image.startswith(b"\xff\xd8") else image
    if _opts_out(searched):
        return True
    packed = list(_packed_texts(image))
    return any(map(_opts_out, packed)) or forbids_in_words((*texts(image), *packed))


def _opts_out(data: bytes) -> bool:
    if _prohibits(data) or any(text in data for text in _WIDE):
        return True
    if data.count(_EXTENDED_XMP) > 1 and _prohibits(_EXTENSION.sub(b"", data)):
        return True
    return (
        _has(data, _TDM_PROPERTY, _TDM_RESERVED, before=20)
        or _has(data, _MINING_PROPERTY, _MINING_PROHIBITED)
        or _has(data, _TRAINING_ASSERTION, _NOT_ALLOWED, window=4_096)
    )


def _has(data: bytes, name: bytes, pattern: re.Pattern[bytes], *, before: int = 0, window: int = 600) -> bool:
    """Whether a pattern is at one of the first places of a name: between `before` and `window` bytes from it.

    A file that is made to take long has the name a million times.
    """
    place = -1
    for _ in range(_MAX_NAMES):
        place = data.find(name, place + 1)
        if place < 0:
            return False
        if pattern.search(data, max(0, place - before), place + window) is not None:
            return True
    return False


def _prohibits(data: bytes) -> bool:
    """Whether the property forbids mining. Looking for its words first takes a twentieth of the time."""
    return _PART_OF_IT in data and _PROHIBITED.search(data) is not None


def _packed_texts(image: bytes) -> Iterator[bytes]:
    """Yields the texts of a PNG that are compressed, or are a profile in hexadecimal digits."""
    if not image.startswith(b"\x89PNG"):
        return
    left = _MAX_TEXTS_BYTES
    for kind, body, _ in chunks(image):
        if kind not in _PNG_TEXTS:
            continue
        keyword, _, rest = body.partition(b"\0")
        is_profile = keyword.startswith(b"Raw profile type")
        text = rest if kind == b"tEXt" and is_profile else b""
        if kind == b"zTXt":
            text = _inflated(rest[1:], left)
        elif kind == b"iTXt" and rest[:1] == b"\1":
            text = _inflated(rest[2:].split(b"\0", 2)[-1], left)
        left -= len(text)
        if is_profile:
            digits = _NO_DIGITS.sub(b"", text.split(b"\n", 3)[-1])  # behind a name and a length
            text = bytes.fromhex(digits[: len(digits) & ~1].decode())
        if text:
            yield text


def _inflated(data: bytes, max_bytes: int) -> bytes:
    if max_bytes <= 0:  # which zlib takes for no limit
        return b""
    try:
        return zlib.decompressobj().decompress(data, min(max_bytes, _MAX_TEXT_BYTES))
    except zlib.error:
        return b""
