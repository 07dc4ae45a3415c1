"""The text of an alert, for an engineer on call at night: the cause first, then what to do, then links.

Causes quote server responses, so every field is reduced to one printable line before it is sent or stored.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from laion_etl.core.causes import cause_of
from laion_etl.core.documented_enum import DocumentedEnum
from laion_etl.core.errors import SettingsError
from laion_etl.core.hidden_secrets import hide_secrets
from laion_etl.core.one_line import one_line
from laion_etl.core.stage_stats import fingerprint
from laion_etl.settings import AlertSettings

# A cause ends with its advice, so a very long one is cut in the middle.
_CAUSE_HEAD_CHARS, _CAUSE_TAIL_CHARS = 1_200, 800
_SETTING = re.compile(r"\bLAION_ETL_[A-Z0-9_]+")
_LIMIT = re.compile(r"(\w+)=(\d+(?:\.\d+)?)([smhd])\Z", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Kind(DocumentedEnum):
    """What an alert is about."""

    FAILED = (
        "failed",
        "A task failed after its last retry. Has the cause, what to do, the command and the page of the "
        "documentation that helps.",
    )
    LATE = "late", "A task takes longer than `LAION_ETL_ALERTS_LATE_AFTER` allows its stage. It goes on."
    RUN_LATE = "run late", "A run has not ended after `LAION_ETL_ALERTS_RUN_DAYS`. It goes on."
    DIGEST = (
        "digest",
        "A run ended: what was done by stage, what is still broken, and how many rows it published.",
    )


@dataclass(frozen=True, slots=True)
class Alert:
    """One notification; empty fields are not shown.

    `unit` is a partition or worker; `task` is Airflow's name of the task, `partition.parse_7`.
    `retry_helps` is False for wrong settings and other causes that a retry cannot change.
    `outcome` and `details` are only set in a digest: `success, 816 rows published` and the lines below it.
    """

    kind: Kind
    crawl: str
    run: str
    stage: str = ""
    unit: str = ""
    reason: str = ""
    attempt: int = 0
    log_url: str = ""
    command: str = ""
    task: str = ""
    run_url: str = ""
    retry_helps: bool = True
    outcome: str = ""
    details: tuple[str, ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Alert":
        """Read the JSON of an alert of any version. Raises KeyError, TypeError or ValueError."""
        known = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
        return cls(**{**known, "kind": Kind(known["kind"]), "details": tuple(known.get("details", ()))})

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def cleaned(self) -> "Alert":
        """Reduce every field to one printable line without secrets: no text can add lines or reverse one."""
        texts: dict[str, Any] = {
            field.name: one_line(hide_secrets(value))
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), str) and field.name != "kind"
        }
        texts["reason"] = shortened(texts["reason"])
        return replace(self, **texts, details=tuple(one_line(hide_secrets(line)) for line in self.details))

    @property
    def title(self) -> str:
        """One line: a mail's subject."""
        match self.kind:
            case Kind.DIGEST:
                return f"laion_etl {self.crawl}: {self.outcome}"
            case Kind.RUN_LATE:
                return f"laion_etl late, still running: run of {self.crawl}"
        state = "late, still running" if self.kind is Kind.LATE else self.kind.value
        where = " ".join(part for part in (self.crawl, self.stage, self.unit) if part)
        return f"laion_etl {state}: {where}"

    @property
    def text(self) -> str:
        """The title, then one line per known field."""
        lines = [f"{name}: {value}" for name, value in self._parts().items() if value]
        return "\n".join([self.title, *lines, *self.details])

    def _parts(self) -> dict[str, str]:
        run = {"run": self.run, "run's page": self.run_url}
        if self.kind is Kind.DIGEST:
            return run
        if self.kind is Kind.RUN_LATE:
            page = {"look here": self.run_url, "more": self.page, "run": self.run}
            return {"late": self.reason, "what to do": _RUN_LATE_ADVICE, **page}
        if self.kind is Kind.LATE:
            page = {"look here": self.log_url, "more": self.page}
            return {"late": self.reason, "what to do": _LATE_ADVICE, **page, **run}
        return {
            "cause": self.reason,
            "what to do": self._advice(),
            "log": self.log_url,
            "by hand": self.command,
            "more": self.page,
            **run,
            "try": str(self.attempt) if self.attempt else "",
        }

    def _advice(self) -> str:
        if self.retry_helps:
            return f"fix the cause, then {_CLEAR}"
        own = [name for name in self.settings_named if f"{name}=" in self.command]
        if own:
            return (
                f"clearing the task cannot help: {', '.join(own)} comes from a parameter of this run, and a "
                "run keeps its parameters; trigger a new run with a correct value"
            )
        if self.settings_named:
            return (
                f"clearing the task alone cannot help: correct {', '.join(self.settings_named)} in the "
                f"environment of Airflow's services, then {_CLEAR}"
            )
        return (
            "clearing the task alone cannot help: first correct what the cause names (if that is a parameter "
            f"of this run, trigger a new run instead), then {_CLEAR}"
        )

    @property
    def page(self) -> str:
        """The page of the documentation that helps."""
        return page_about(self.stage) if self.kind is Kind.FAILED else _LATE_PAGE

    @property
    def settings_named(self) -> tuple[str, ...]:
        """The settings mentioned in the cause."""
        return tuple(dict.fromkeys(_SETTING.findall(self.reason)))

    @property
    def folder(self) -> str:
        """Folder of the alerts of this run and cause; reasons that differ only in numbers share a cause."""
        alike = fingerprint(self.kind, self.stage, cause_of(self.reason))
        return f"{run_folder(self.crawl, self.run)}/{alike}"

    @property
    def name(self) -> str:
        """Name of the alert's file: a late unit is reported once per run, a failure once per attempt."""
        attempt = self.attempt if self.kind is Kind.FAILED else 0
        return f"{self.folder}/{fingerprint(self.unit, attempt, self.outcome, self.details)}.json"


_PAGE = "docs/how-to/alerts.md"
_LATE_PAGE = "docs/how-to/progress.md"
# What the documentation says about a failure of a task.
PAGES = {
    "estimate": "docs/how-to/costs.md",
    **dict.fromkeys(("discover", "parse", "load", "plan", "plan_range"), "docs/how-to/failed-partition.md"),
    "download": "docs/how-to/failed-batch.md",
    "score": "docs/how-to/damaged-shard.md",
    **dict.fromkeys(
        ("publish", "publish_hashes", "publish_compare", "publish_range", "publish_finish"),
        "docs/how-to/publish-large.md",
    ),
    **dict.fromkeys(("register", "choose", "start"), "docs/how-to/backfill.md"),
}
_CLEAR = (
    "clear the task with Downstream and without Only Failed (or press Retry on the run's tab Crawl); "
    "finished work is recognised and skipped"
)
_LATE_ADVICE = (
    "nothing was stopped and nothing is lost. If the log still grows, wait. Do not start the same work a "
    "second time; to restart it, mark the task as failed first, then clear it"
)
_RUN_LATE_ADVICE = (
    "nothing was stopped and nothing is lost. The run's page shows which tasks are running, waiting or "
    "failed; its tab Crawl shows their progress. Do not start the same work a second time"
)


def page_about(task: str) -> str:
    """Return the page of the documentation that helps when a task fails."""
    return PAGES.get(task, _PAGE)


def span(seconds: float) -> str:
    """Format a time limit: 7 days, 90 minutes, 0.1 seconds."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            number = int(seconds // length)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:g} seconds"


def shortened(cause: str) -> str:
    """Cut the middle out of a very long cause: it begins with what failed and ends with advice."""
    if len(cause) <= _CAUSE_HEAD_CHARS + _CAUSE_TAIL_CHARS:
        return cause
    return f"{cause[:_CAUSE_HEAD_CHARS]} […] {cause[-_CAUSE_TAIL_CHARS:]}"


def run_folder(crawl: str, run: str) -> str:
    """Return the folder of a run's alerts in the store."""
    return f"alerts/{crawl}/{fingerprint(run)}"


def late_after_s(settings: AlertSettings, stage: str) -> float | None:
    """Return the seconds after which a task of a stage is late; None for never. Raises SettingsError."""
    limits = {}
    for entry in settings.late_after:
        match = _LIMIT.match(entry)
        if match is None:
            raise SettingsError(
                f"cannot read LAION_ETL_ALERTS_LATE_AFTER: {entry!r} is not like parse=90m; give a stage, a "
                "number and s, m, h or d"
            )
        limits[match[1]] = float(match[2]) * _SECONDS[match[3]]
    return limits.get(stage)
