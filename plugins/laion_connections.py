"""Airflow's connections as environment variables of commands that run beside Airflow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from laion_etl.errors import SettingsError
from laion_etl.settings import load_settings
from laion_etl.storage import open_store, s3_client

_LIBPQ_EXTRAS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "target_session_attrs")


def database() -> dict[str, str]:
    """The Postgres of LAION_ETL_DATABASE_CONN_ID; nothing where that is empty."""
    connection = _connection(_settings().database.conn_id)
    if connection is None:
        return {}
    from psycopg.conninfo import make_conninfo  # slow to import, and reading DAGs comes through here

    parts = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
        **{name: value for name, value in connection.extra_dejson.items() if name in _LIBPQ_EXTRAS},
    }
    return {"LAION_ETL_DATABASE_URL": make_conninfo(**{k: v for k, v in parts.items() if v})}


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """The S3 access of LAION_ETL_AIRFLOW_S3_CONN_ID while the block runs; nothing where that is empty.

    A role is left to the command's own boto3, by a configuration file of its own: what is assumed here would
    run out within the hour, and a download takes days.
    """
    connection = _connection(_settings().airflow.s3_conn_id)
    if connection is None:
        yield {}
        return
    extra = connection.extra_dejson
    region = {"AWS_DEFAULT_REGION": extra.get("region_name"), "AWS_ENDPOINT_URL": extra.get("endpoint_url")}
    keys = {
        "aws_access_key_id": connection.login,
        "aws_secret_access_key": connection.password,
        "aws_session_token": extra.get("aws_session_token"),
    }
    if not extra.get("role_arn"):
        yield _set({**region, **{name.upper(): value for name, value in keys.items()}})
        return
    with TemporaryDirectory(prefix="laion-aws-") as folder:  # readable by this user only
        file = Path(folder) / "config"
        file.write_text(_role(extra["role_arn"], extra.get("external_id", ""), _set(keys)))
        yield _set({**region, "AWS_CONFIG_FILE": str(file), "AWS_PROFILE": "laion"})


def use_own_s3() -> None:
    """Gives this process a new S3 client with the same access, for what Airflow itself keeps in the store.

    The environment stays as it was: the triggerer, which lives for months, has other connections to serve.
    """
    store_uri = _settings().store_uri
    if not store_uri.startswith("s3://"):
        return
    with _ENVIRONMENT, s3() as access:
        before = {name: os.environ.get(name) for name in access}
        os.environ.update(access)
        try:
            s3_client.cache_clear()
            open_store(store_uri)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


_ENVIRONMENT = Lock()


def _role(arn: str, external_id: str, keys: dict[str, str]) -> str:
    """A configuration of boto3 that assumes a role, with these keys or the machine's own."""
    source = ["source_profile = base"] if keys else ["credential_source = Ec2InstanceMetadata"]
    external = [f"external_id = {external_id}"] if external_id else []
    base = ["[profile base]", *(f"{name} = {value}" for name, value in keys.items())]
    return "\n".join(["[profile laion]", f"role_arn = {arn}", *source, *external, *base, ""])


def _set(variables: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in variables.items() if value}


def _connection(conn_id: str) -> Any:
    """The connection of that name, None where none is named."""
    try:
        return BaseHook.get_connection(conn_id) if conn_id else None
    except AirflowNotFoundException as error:
        raise AirflowFailException(str(error)) from error


def _settings() -> Any:
    try:
        return load_settings()
    except SettingsError as error:
        raise AirflowFailException(str(error)) from error
