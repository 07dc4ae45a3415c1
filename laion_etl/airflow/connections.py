"""Airflow's connections as environment variables of the commands that tasks run."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode

from airflow.sdk import BaseHook

from laion_etl.io.storage import open_store, s3_client
from laion_etl.settings import Settings, load_settings

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PROFILE, _BASE = "laion_etl", "laion_etl_base"
_LIBPQ_EXTRAS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "target_session_attrs")


def database() -> dict[str, str]:
    """The Postgres servers of LAION_ETL_DATABASE_CONN_ID; empty if that is not set."""
    servers = [_parts(BaseHook.get_connection(name)) for name in load_settings().database.conn_id]
    if not servers:
        return {}
    if len(servers) > 1:
        urls = [f"postgresql:///?{urlencode(parts, quote_via=quote)}" for parts in servers]  # without commas
        return {"LAION_ETL_DATABASE_URL": urls[0], "LAION_ETL_DATABASE_URLS": ",".join(urls)}
    from psycopg.conninfo import (
        make_conninfo,
    )  # slow to import, and this module is loaded when DAGs are parsed

    return {"LAION_ETL_DATABASE_URL": make_conninfo(**servers[0]), "LAION_ETL_DATABASE_URLS": ""}


def database_url(settings: Settings) -> str:
    """The server with the queue: that of the connection, or of the settings; '' for the embedded one."""
    return database().get("LAION_ETL_DATABASE_URL", settings.core.first_url)


def _parts(connection: Any) -> dict[str, str]:
    """The parameters of libpq for a connection of Airflow."""
    parts = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
        **{name: value for name, value in connection.extra_dejson.items() if name in _LIBPQ_EXTRAS},
    }
    return _set(parts)


@contextmanager
def s3() -> Iterator[dict[str, str | None]]:
    """The S3 access of LAION_ETL_AIRFLOW_S3_CONN_ID while the block runs; empty if that is not set.

    A value of None means "unset": otherwise boto3 would prefer Airflow's own keys to those of the connection.
    A role is assumed by the command's own boto3, through a separate configuration file: credentials assumed
    here would expire within the hour, and a download takes days.
    """
    connection = _connection(load_settings().airflow.s3_conn_id)
    if connection is None:
        yield {}
        return
    extra = connection.extra_dejson
    place = {"AWS_DEFAULT_REGION": extra.get("region_name"), "AWS_ENDPOINT_URL": extra.get("endpoint_url")}
    access: dict[str, str | None] = dict(_set(place))
    keys = _set(
        {
            "AWS_ACCESS_KEY_ID": connection.login,
            "AWS_SECRET_ACCESS_KEY": connection.password,
            "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        }
    )
    if not extra.get("role_arn"):
        yield access | (dict.fromkeys(_KEYS) | keys if keys else {})
        return
    base = keys or _set({name: os.environ.get(name) for name in _KEYS})
    with TemporaryDirectory(prefix="laion-aws-") as folder:  # readable by this user only
        file = Path(folder) / "config"
        file.write_text(_role(extra["role_arn"], extra.get("external_id", ""), base))
        profile = {"AWS_CONFIG_FILE": str(file), "AWS_PROFILE": _PROFILE, "AWS_DEFAULT_PROFILE": None}
        yield access | dict.fromkeys(_KEYS) | profile


def use_own_s3() -> None:
    """Gives this process a new S3 client with the same access, for files that Airflow itself keeps in the
    store.

    The environment is unchanged: the triggerer runs for months and serves other connections, too.
    """
    store_uri = load_settings().store_uri
    if not store_uri.startswith("s3://"):
        return
    with _ENVIRONMENT, s3() as access:
        before = {name: os.environ.get(name) for name in access}
        try:
            _change(access)
            s3_client.cache_clear()
            open_store(store_uri)
        finally:
            _change(before)


_ENVIRONMENT = Lock()


def _change(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _role(arn: str, external_id: str, keys: Mapping[str, str]) -> str:
    """A configuration of boto3 that assumes a role with these keys, or else with the machine's credentials.

    https://docs.aws.amazon.com/cli/latest/topic/config-vars.html#using-aws-iam-roles
    """
    source, base = [f"source_profile = {_BASE}"], [f"[profile {_BASE}]"]
    own_role = {
        name: os.environ.get(f"AWS_{name.upper()}") for name in ("role_arn", "web_identity_token_file")
    }
    if keys:
        base += [f"{name.lower()} = {value}" for name, value in keys.items()]
    elif all(own_role.values()):  # a Kubernetes service account's
        base += [f"{name} = {value}" for name, value in own_role.items()]
    else:
        ecs = any(name.startswith("AWS_CONTAINER_CREDENTIALS_") for name in os.environ)
        source = [f"credential_source = {'EcsContainer' if ecs else 'Ec2InstanceMetadata'}"]
    external = [f"external_id = {external_id}"] if external_id else []
    return "\n".join([f"[profile {_PROFILE}]", f"role_arn = {arn}", *source, *external, *base, ""])


def _set(variables: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in variables.items() if value}


def _connection(conn_id: str) -> Any:
    """The connection of that name; None for an empty name. Raises AirflowNotFoundException."""
    return BaseHook.get_connection(conn_id) if conn_id else None
