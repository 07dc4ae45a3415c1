"""Exceptions that rules raise: each costs the record or link it came from, and no other.

They are counted as `internal_error`, with the first few exceptions in the stats. What is not contained, and
which share ends the task, is said in laion_etl.core.rule_failures.
"""

from dataclasses import dataclass, field

from laion_etl.core.errors import InternalError
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import described, printable, too_many

_EXAMPLES = 5


@dataclass(slots=True)
class InternalErrors:
    """The first exceptions of a file or a partition, as {"page": URL, "error": type and message}."""

    examples: list[dict[str, str]] = field(default_factory=list)

    def note(self, page: str, error: Exception) -> None:
        """Keeps an exception if it is among the first."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append({"page": printable(page), "error": described(error)})

    def add(self, other: "InternalErrors") -> None:
        """Keeps those of another unit, as far as there is room."""
        self.examples += other.examples[: _EXAMPLES - len(self.examples)]


def check_share(what: str, failed: int, total: int, noun: str, errors: InternalErrors) -> None:
    """Raises InternalError if rules failed for too many records (or links) of a file."""
    if too_many(failed, total):
        raise _refusal(what, f"{failed:,} of {total:,} {noun}", errors)


def check_something_is_left(what: str, failed: int, kept: int, errors: InternalErrors) -> None:
    """Raises InternalError if nothing is kept and rules failed."""
    if failed and not kept:
        raise _refusal(what, f"{quantity(failed, 'record')} or links, and no pair is left", errors)


def _refusal(what: str, count: str, errors: InternalErrors) -> InternalError:
    first = errors.examples[0] if errors.examples else {"error": "unknown", "page": "unknown"}
    return InternalError(
        f"cannot parse {what}: a rule failed for {count} (first: {first['error']}, on {first['page']}); "
        "check the installation and custom filters, or report this bug"
    )
