"""Formats of the text fields of a run's form, so that a wrong entry is refused before the run is created.

JSON schema has no ranges, and its message for a pattern is the regular expression. A *format* is checked by a
function, and its name appears in the message: `'5:2' is not a 'range of WAT files such as 0:2, 7 or 100:'`.
Airflow checks params with jsonschema's formats wherever runs are created: in the API server, for `airflow
dags trigger` and for backfills, all of which load plugins. A process without this module accepts any text;
`discover` makes the final check.
"""

import re
from collections.abc import Callable

from jsonschema import FormatChecker

from laion_etl.core.errors import SettingsError
from laion_etl.crawl import parse_selection

WAT_FILES = "range of WAT files such as 0:2, 7 or 100:"
LANGUAGES = "list of language codes such as en,de,none"
FOLDER = "folder such as trials/first"

# The valid codes depend on the detector, which `discover` asks; a user-defined one may use eng_Latn.
_CODE = r"(none|[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})?)"
_LANGUAGES = re.compile(f"{_CODE}(,{_CODE})*")
_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MAX_CHARS = 500


def _selects(text: str) -> bool:
    try:
        parse_selection(text)
    except SettingsError:
        return False
    return True


def _or_nothing(allows: Callable[[str], object]) -> Callable[[object], bool]:
    """A check that accepts an empty field; the schema checks types other than text."""
    return lambda value: not isinstance(value, str) or not value or bool(allows(value))


FORMATS: dict[str, Callable[[object], bool]] = {
    WAT_FILES: _or_nothing(_selects),
    LANGUAGES: _or_nothing(_LANGUAGES.fullmatch),
    FOLDER: _or_nothing(lambda text: len(text) <= _MAX_CHARS and _FOLDER.fullmatch(text)),
}
for _name, _allows in FORMATS.items():
    FormatChecker.checkers[_name] = (_allows, ())
