"""What the text fields of a run's form take, so that a wrong entry is refused before the run is made.

JSON schema knows no range, and its answer to a pattern is the regular expression. A *format* is checked by a
function, and the message is its name: `'5:2' is not a 'range of WAT files such as 0:2, 7 or 100:'`. Airflow
checks params with jsonschema's formats wherever runs are made: in the API server, for `airflow dags trigger`
and for backfills, all of which load plugins. A process without this file takes any text; `discover` has the
last word.
"""

import re
from collections.abc import Callable

from airflow.plugins_manager import AirflowPlugin
from jsonschema import FormatChecker

from laion_etl.crawl import parse_selection
from laion_etl.errors import SettingsError

WAT_FILES = "range of WAT files such as 0:2, 7 or 100:"
LANGUAGES = "list of language codes such as en,de,none"
FOLDER = "folder such as trials/first"

# Which codes there are is up to the detector, which `discover` asks; one's own may answer eng_Latn.
_CODE = r"(none|[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})?)"
_LANGUAGES = re.compile(f"{_CODE}(,{_CODE})*")
_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MOST_CHARS = 500


def _selects(text: str) -> bool:
    try:
        parse_selection(text)
    except SettingsError:
        return False
    return True


def _or_nothing(allows: Callable[[str], object]) -> Callable[[object], bool]:
    """A check of a field that may be left empty; other types than text are up to the schema."""
    return lambda value: not isinstance(value, str) or not value or bool(allows(value))


FORMATS: dict[str, Callable[[object], bool]] = {
    WAT_FILES: _or_nothing(_selects),
    LANGUAGES: _or_nothing(_LANGUAGES.fullmatch),
    FOLDER: _or_nothing(lambda text: len(text) <= _MOST_CHARS and _FOLDER.fullmatch(text)),
}
for _name, _allows in FORMATS.items():
    FormatChecker.checkers[_name] = (_allows, ())


class LaionFormsPlugin(AirflowPlugin):
    """Has the formats registered in all of Airflow's processes."""

    name = "laion_forms"
