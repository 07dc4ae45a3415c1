"""Settings of the connection to Postgres."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The connection to Postgres, and how patient it is. See core for its URL."""

    statement_timeout_s: float = setting(60.0, "Longest statement of the queue and of status, seconds.")
    bulk_timeout_s: float = setting(
        21_600.0, "Longest statement of load, plan and forget, seconds; 0: no limit."
    )
    idle_timeout_s: float = setting(
        600.0, "A client silent this long within a transaction loses it, and its locks, seconds."
    )
    retry_for_s: float = setting(
        60.0, "How long a lost connection is opened again, and conflicts are tried again, seconds."
    )
    pair_leaves: int = setting(
        16, "Tables that table pair is cut into when the schema is made (docs/scaling-postgres.md)."
    )
    conn_id: str = setting(
        "", "Airflow connection whose Postgres the DAGs' commands use in place of LAION_ETL_DATABASE_URL."
    )
    sslmode: str = setting(
        "", "TLS of the connection: require, verify-ca, verify-full ...; empty: what the URL or libpq says."
    )
    sslrootcert: str = setting(
        "", "File of the certificates that the server's is checked against, or system."
    )
    sslcert: str = setting("", "File of the client's certificate.")
    sslkey: str = setting("", "File of the client's key.")
