"""Why the cluster's API did not do what a task asked for, and whether that passes by itself."""

import re

from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity
from urllib3.exceptions import HTTPError

from laion_etl.airflow.errors import FinalError
from laion_etl.core.plain_json import parse_json

# 409: others changed the quota's usage at the same moment, or the answer to an earlier request was lost.
_PASSING = {409, 429, 500, 502, 503, 504}
_QUOTA = re.compile(
    r"exceeded quota: (?P<name>\S+), requested: (?P<requested>\S+), .*limited: (?P<limited>\S+)"
)


def refusal(error: ApiException | HTTPError) -> str:
    """Return why the API refused, if the same request may succeed later; '' if it never will.

    Raises FinalError for a pod that is larger than its quota.
    """
    if isinstance(error, HTTPError):
        return f"the cluster's API cannot be reached: {error}"
    message = _message(error)
    if error.status == 403 and "exceeded quota" in message:
        _check_size(message)
        return f"the cluster has no quota left for the pod: {message}"
    return f"the cluster's API answered {error.status}: {message}" if error.status in _PASSING else ""


def _check_size(message: str) -> None:
    found = _QUOTA.search(message)
    if found is None:
        return
    requested, limited = (_quantities(found[part]) for part in ("requested", "limited"))
    for resource, wanted in requested.items():
        most = limited.get(resource)
        if most is not None and parse_quantity(wanted) > parse_quantity(most):
            raise FinalError(
                f"cannot start the pod: it requests {resource}={wanted}, and the quota {found['name']} "
                f"allows all pods of the namespace together {most}; request less, or raise the quota"
            )


def _quantities(listed: str) -> dict[str, str]:
    """The quantities of `pods=1,requests.cpu=4` by resource."""
    return dict(entry.split("=", 1) for entry in listed.split(",") if "=" in entry)


def _message(error: ApiException) -> str:
    """The message of the API's Status object, else the HTTP reason."""
    try:
        return str(parse_json(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
