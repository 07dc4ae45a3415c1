"""The API server answers only to the addresses in `[laion_etl] allowed_hosts`; without that option, to any.

The demo sets it: its Airflow listens on loopback, where other web pages could reach it by DNS rebinding.
"""

from typing import Any

from airflow.configuration import conf

from laion_etl.demo.hosts import HostCheck


def middlewares() -> list[dict[str, Any]]:
    """The check in front of all of Airflow's pages and APIs, as `fastapi_root_middlewares`."""
    hosts = conf.getlist("laion_etl", "allowed_hosts", fallback=[])
    check = {"name": "laion_etl host check", "middleware": HostCheck, "kwargs": {"hosts": hosts}}
    return [check] if hosts else []
