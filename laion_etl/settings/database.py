"""Settings of the connection to Postgres."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class DatabaseSettings(Group):
    """The connection to Postgres and its time limits. The URL is in group core."""

    GROUP: ClassVar[str] = "database"

    statement_timeout_s: float = setting(
        60.0,
        "Time limit of statements of the queue and of status; 0: no limit.",
        changes=None,
        unit="s",
        minimum=0,
    )
    bulk_timeout_s: float = setting(
        21_600.0,
        "Time limit of statements of load, plan and forget, without waiting for locks; 0: no limit.",
        changes=None,
        unit="s",
        minimum=0,
    )
    idle_timeout_s: float = setting(
        600.0,
        "A client idle this long within a transaction loses it; 0: no limit. Locks of load, plan and forget "
        "end with their client instead.",
        changes=None,
        unit="s",
        minimum=0,
    )
    retry_for_s: float = setting(
        60.0,
        "How long lost connections and conflicts are retried.",
        changes=None,
        unit="s",
        minimum=0,
    )
    pair_leaves: int = setting(
        16,
        "Number of tables that table pair is split into when the schema is created "
        "(docs/scaling-postgres.md).",
        changes=None,
        unit="tables",
        minimum=1,
        maximum=1_024,
    )
    key_ranges: int = setting(
        64,
        "Number of ranges of keys that loads are split into, set when the schema is created: so many "
        "connections of loaders can write at once. It has to fit with the number of leaves (one divides the "
        "other); if not, that is used.",
        changes=None,
        unit="ranges",
        minimum=1,
        maximum=1_024,
    )
    conn_id: tuple[str, ...] = setting(
        (),
        "Airflow connection to the Postgres that the DAGs' commands use instead of LAION_ETL_DATABASE_URL; "
        "with several servers, all connections in the order of LAION_ETL_DATABASE_URLS.",
        changes=None,
    )
    sslmode: str = setting(
        "",
        "TLS mode of the connection; empty: as in the URL, else verify-full with an sslrootcert, or libpq's "
        "default.",
        changes=None,
        choices=("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    )
    sslrootcert: str = setting(
        "", "File of CA certificates that the server's is checked against, or system.", changes=None
    )
    sslcert: str = setting("", "File of the client certificate.", changes=None)
    sslkey: str = setting("", "File of the client certificate's key.", changes=None)
