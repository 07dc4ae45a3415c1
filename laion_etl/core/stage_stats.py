"""The stats record next to a stage's data files, and the fingerprint by which finished work is recognised.

Does not import pyarrow: Airflow imports this module whenever it parses the DAGs.
"""

import builtins
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import parse_json

FORMAT = 2  # 1 is without a number


@dataclass(frozen=True, slots=True)
class Output:
    """A finished data file, by its name in the store."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def from_bytes(cls, name: str, data: builtins.bytes) -> "Output":
        """Returns the entry of a file with these bytes."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest())


# The fingerprint of placeholder stats, which are in place while the files of a unit are being replaced.
UNFINISHED = ""


@dataclass(frozen=True, slots=True)
class StageStats:
    """The result of a stage for one unit (partition, batch, shard, crawl); written last, it marks it as done.

    `fingerprint` covers settings and inputs: a finished unit is reused only when it matches. `details` has
    what else the stage counted (JSON values).
    Raises ValueError when the counters do not add up to the input.
    """

    stage: str
    crawl: str
    unit: str
    fingerprint: str
    input: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        total = self.kept + sum(self.dropped.values())
        if total != self.input:
            raise ValueError(
                f"cannot record {self.stage} {self.crawl} {self.unit}: {self.input} records in, {total} "
                "accounted for; please report this bug"
            )

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any], uri: str = "") -> "StageStats":
        """The record of plain JSON values. Raises InputError if a newer laion-etl wrote it, naming `uri`;
        ValueError, KeyError, TypeError or AttributeError if it is not one, or names files outside the store.
        """
        values = dict(plain)
        named = uri or f"the stats of {plain.get('stage')} {plain.get('crawl')} {plain.get('unit')}"
        check_format(named, values.pop("format", None), FORMAT)
        if not isinstance(plain.get("details", {}), dict):
            raise TypeError("its details are not an object")
        outputs = tuple(Output(**output) for output in plain["outputs"])
        for output in outputs:
            if output.name.startswith("/") or ".." in output.name.split("/"):
                raise ValueError(f"{output.name!r} is outside the store")
        counts = (plain["input"], plain["kept"], *plain.get("dropped", {}).values())
        if not all(type(count) is int and count >= 0 for count in (*counts, *(one.bytes for one in outputs))):
            raise ValueError("a count in it is not a whole number")
        if not all(
            isinstance(text, str) for text in (plain["fingerprint"], *(one.sha256 for one in outputs))
        ):
            raise TypeError("its fingerprint, or a SHA-256 in it, is not a text")
        return cls(**{**values, "outputs": outputs})

    @classmethod
    def unfinished(cls, stage: str, crawl: str, unit: str) -> "StageStats":
        """Return placeholder stats of a unit, which no reader takes for a result."""
        return cls(stage, crawl, unit, UNFINISHED, 0, 0)

    def to_json(self) -> bytes:
        return json.dumps(self.to_plain(), indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, uri: str = "") -> "StageStats":
        """The record of a file, `uri`; raises like `from_plain`, ValueError etc. if it is not one."""
        return cls.from_plain(parse_json(data), uri)


def fingerprint(*parts: object) -> str:
    """Returns a short hash of settings and inputs: dataclasses and plain JSON values in any nesting."""
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
