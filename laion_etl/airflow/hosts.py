"""The API server answers only to the addresses in `[laion_etl] allowed_hosts`; without that option, to any.

The demo sets it: its Airflow listens on loopback, where other web pages could reach it by DNS rebinding.
"""

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from laion_etl.demo.hosts import HostCheck

_HOSTS = conf.getlist("laion_etl", "allowed_hosts", fallback=[])


class LaionHostsPlugin(AirflowPlugin):
    """Mounts the check in front of all of Airflow's pages and APIs."""

    name = "laion_hosts"
    fastapi_root_middlewares = [
        {"name": "laion_etl host check", "middleware": HostCheck, "kwargs": {"hosts": _HOSTS}}
    ][: bool(_HOSTS)]
