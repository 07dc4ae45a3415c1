"""Settings of the connection to Postgres."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class DatabaseSettings(Group):
    """The connection to Postgres, and how patient it is. See core for its URL."""

    GROUP: ClassVar[str] = "database"

    statement_timeout_s: float = setting(
        60.0, "Longest statement of the queue and of status; 0: no limit.", changes=None, unit="s", minimum=0
    )
    bulk_timeout_s: float = setting(
        21_600.0,
        "Longest statement of load, plan and forget; 0: no limit.",
        changes=None,
        unit="s",
        minimum=0,
    )
    idle_timeout_s: float = setting(
        600.0,
        "A client silent this long within a transaction loses it, and its locks; 0: no limit.",
        changes=None,
        unit="s",
        minimum=0,
    )
    retry_for_s: float = setting(
        60.0,
        "How long a lost connection is opened again, and conflicts are tried again.",
        changes=None,
        unit="s",
        minimum=0,
    )
    pair_leaves: int = setting(
        16,
        "Tables that table pair is cut into when the schema is made (docs/scaling-postgres.md).",
        changes=None,
        unit="tables",
        minimum=1,
        maximum=1_024,
    )
    conn_id: str = setting(
        "",
        "Airflow connection whose Postgres the DAGs' commands use in place of LAION_ETL_DATABASE_URL.",
        changes=None,
    )
    sslmode: str = setting(
        "",
        "TLS of the connection; empty: what the URL or libpq says.",
        changes=None,
        choices=("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    )
    sslrootcert: str = setting(
        "", "File of the certificates that the server's is checked against, or system.", changes=None
    )
    sslcert: str = setting("", "File of the client's certificate.", changes=None)
    sslkey: str = setting("", "File of the client's key.", changes=None)
