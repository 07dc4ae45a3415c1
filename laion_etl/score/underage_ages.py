"""Ages below 18 in a caption: "14yo", "13 y/o", "fourteen-year-old", "14-jährige", "14 лет", "under 18".

How languages write them is data (`ages` in prompts/underage.json). Numbers in words count only with the units
of their own language, which may be words of another one. Years that are no age ("10 años de experiencia") are
left out where what follows shows it; a whisky of twelve years is not: suspicion alone drops nothing.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

_ADULT = 18
_NUMBER = re.compile(r"(?<!\d)(?<!\d[.,:])(\d{1,2})(?:[.,]5)?(?!\d|[.,:]\d)")
# What in front of "14f", or behind it, makes it a temperature or a model.
_NO_PERSON = (
    "rated", "near", "around", "about", "to", "of", "from", "at", "below", "above", "between", "than",
    "minus", "lows", "highs", "temp", "the", "no", "nr", "model", "type", "series", "part", "size", "class",
)  # fmt: skip
_NO_PERSONS = (
    "sleeping|bags?|quilt|weather|temp|deg|cold|wind|outside|to 1|(?:super)?capacit|catheter|alumini|profile"
)
# "14/f", "14f" as chats have it; "f/14" is an aperture, "14 F" a temperature, "14m" a length, "5/m" a price.
_AGE_AND_SEX = re.compile(
    r"(?<![\w./,:€$£¥])(?:1[0-7](?:/[fmw]| ?/ ?f)|[5-9]/f|"
    rf"(?=1[0-7]f){''.join(f'(?<!{word} )' for word in _NO_PERSON)}1[0-7]f(?! (?:{_NO_PERSONS})))(?!\w)"
)
_GROUP = re.compile(r"(?:s|er|ers)?(?!\w)")  # the under-16s
# What makes a number behind "under" or "I am" another quantity.
_MEASURED = re.compile(
    r" ?(?:[%€$£¥°]|proz|руб|мин|час|дн|см|m (?:away|from|high|long|tall)\b|"
    r"(?:[mck]m|k?g|kb?|[mg]b|h|hrs?|oz|lbs?|min(?:s|ut\w*)?|sec(?:s|onds?)?|second[aoie]s?|sek\w*|hours?|"
    r"days?(?! old)|tag(?:en?)?|jours?|d[ií]as?|giorn[io]|inch(?:es)?|ft|f(?:ee|oo)t|miles?|met(?:er|re)s?|"
    r"calor\w*|gram\w*|kilo\w*|pounds?|euros?|dollars?|usd|bucks|per|percent|parts?|degrees?|deg|points?|"
    r"pts|steps?|times|bolts?|pumps?|connectors?|submarines?)\b)"
)
_LENGTH = re.compile(r" ?(m\b|[\"'](?!s\b))")  # behind "I am" a sex, or the end of what was quoted
_NEAR = 24  # characters in front of a number that are looked at
_YOUNGEST_LIMIT = 12
_IDEOGRAPH = "\u3040"  # from here on scripts set no spaces
_Fold = Callable[[str], str]
_Pattern = re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Ages:
    """Compiled patterns of `ages`, for texts in their folded form."""

    after: _Pattern
    infants: _Pattern
    before: _Pattern
    below: _Pattern
    numbers: _Pattern
    ascii_numbers: _Pattern  # those of `numbers` that an ASCII text may have: less to look for
    languages: Mapping[str, frozenset[str]]  # of each number
    after_in: Mapping[str, _Pattern]
    before_in: Mapping[str, _Pattern]
    tens: _Pattern
    not_ages: _Pattern

    @property
    def identity(self) -> tuple[str, ...]:
        """Changes with the lists."""
        of_languages = (*self.after_in.values(), *self.before_in.values())
        of_all = (self.after, self.before, self.below, self.infants, self.numbers, self.tens, self.not_ages)
        return tuple(one.pattern for one in (*of_all, *of_languages))

    def found_in(self, text: str) -> bool:
        """Whether a folded text states an age below 18, or one of up to 18 as a limit."""
        if text.isascii():
            plain, numbers = text, self.ascii_numbers
        else:
            plain, numbers = _with_ascii_digits(text), self.numbers
        return (
            _AGE_AND_SEX.search(plain) is not None
            or any(self._is_age(plain, found) for found in _NUMBER.finditer(plain))
            or any(self._is_age_in_words(plain, found) for found in numbers.finditer(plain))
        )

    def _is_age(self, text: str, number: re.Match[str]) -> bool:
        end, years = number.end(), int(number[1])
        if self.infants.match(text, end):
            return True
        near = text[max(0, number.start() - _NEAR) : number.start()]
        if years < _ADULT:
            if self._is_unit(self.after, text, end):
                return True
            if self.before.search(near) and not _MEASURED.match(text, end):
                return True
        is_limit = _YOUNGEST_LIMIT <= years <= _ADULT and self.below.search(near)
        if not is_limit or _GROUP.match(text, end) is None:
            return False
        return not _MEASURED.match(text, end) and not _is_length(text, end, near)

    def _is_age_in_words(self, text: str, number: re.Match[str]) -> bool:
        near = text[max(0, number.start() - _NEAR) : number.start()]
        for language in self.languages[number[0]]:
            if self._is_unit(self.after_in[language], text, number.end()) and not self.tens.search(near):
                return True
            before = self.before_in.get(language)
            if before and before.search(near) and not text[number.end() : number.end() + 1].isalpha():
                return True
        return False

    def _is_unit(self, units: _Pattern, text: str, place: int) -> bool:
        found = units.match(text, place)
        return found is not None and not self.not_ages.match(text, found.end())


def _is_length(text: str, place: int, near: str) -> bool:
    """Whether metres or inches follow; after an opening quotation mark, the next one ends what is quoted."""
    found = _LENGTH.match(text, place)
    return found is not None and (found[1] == "m" or found[1] not in near)


def compiled_ages(lists: Mapping[str, Mapping[str, Sequence[str]]], fold: _Fold) -> Ages:
    """Compile the lists of a file."""
    languages: dict[str, set[str]] = defaultdict(set)
    for language, words in lists["numbers"].items():
        for word in words:
            languages[fold(word)].add(language)
    after, before = lists["after"], lists["before"]
    return Ages(
        after=_behind(fold, _all(after)),
        infants=_behind(fold, lists["infants"]),
        before=_in_front(fold, _all(before)),
        below=_in_front(fold, _all(lists["below"])),
        numbers=re.compile(_first_letters_first(languages)),
        ascii_numbers=re.compile(_first_letters_first(filter(str.isascii, languages))),
        languages={word: frozenset(found) for word, found in languages.items()},
        after_in={language: _behind(fold, after[language]) for language in lists["numbers"]},
        before_in={language: _in_front(fold, words) for language, words in before.items()},
        tens=_in_front(fold, lists["tens"]),
        not_ages=re.compile(f" ?(?:{'|'.join(re.escape(fold(one)) for one in lists['not_ages'])})"),
    )


def _all(lists: Mapping[str, Sequence[str]]) -> Iterator[str]:
    return (entry for entries in lists.values() for entry in entries)


def _behind(fold: _Fold, entries: Iterable[str]) -> _Pattern:
    """Return a pattern of what follows a number: whole words unless they end in an asterisk."""
    return re.compile(f"(?: ?\\+)? ?{_any(map(fold, entries), begins=False)}")


def _in_front(fold: _Fold, entries: Iterable[str]) -> _Pattern:
    """Return a pattern of what a text ends with."""
    return re.compile(f"{_any(map(fold, entries), begins=True)} ?$")


def _any(entries: Iterable[str], *, begins: bool) -> str:
    """Return a pattern of some entries, the longest first; words have their beginning or their end there."""
    patterns = []
    for entry in sorted(set(entries), key=lambda entry: (-len(entry), entry)):
        word = entry.removesuffix("*")
        start = r"(?<!\w)" if begins and word[0].isalpha() and word[0] < _IDEOGRAPH else ""
        end = "" if begins or word != entry else r"(?!\w)"
        patterns.append(f"{start}{re.escape(word)}{end}")
    return f"(?:{'|'.join(patterns)})"


def _first_letters_first(words: Iterable[str]) -> str:
    """Return a pattern of beginnings of words that is fast to search for: letters come before conditions."""
    patterns = []
    for first, found in groupby(sorted(words, reverse=True), key=lambda word: word[0]):
        begins = rf"(?<!\w{first})" if first < _IDEOGRAPH else ""
        rest = "|".join(re.escape(word[1:]) for word in found)
        patterns.append(f"{first}{begins}(?:{rest})")
    return "|".join(patterns)


def _with_ascii_digits(text: str) -> str:
    return "".join(
        str(unicodedata.decimal(c)) if c > "\x7f" and unicodedata.decimal(c, None) is not None else c
        for c in text
    )
