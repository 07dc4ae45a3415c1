"""Settings as logs and pods may show them: without passwords, tokens and the signatures of signed URLs."""

import shlex
from collections.abc import Mapping

from laion_etl.core.hidden_secrets import hide_secrets
from laion_etl.settings import setting_fields

_SECRETS = {field.variable for field in setting_fields() if field.secret}
_SERVERS = {"LAION_ETL_DATABASE_URL", "LAION_ETL_DATABASE_URLS"}  # of which host and user help in a log


def shown_settings(environment: Mapping[str, str]) -> str:
    """The LAION_ETL_* of an environment in shell syntax, without secrets."""
    named = sorted(item for item in environment.items() if item[0].startswith("LAION_ETL_"))
    return " ".join(f"{name}={shlex.quote(without_secrets(name, value))}" for name, value in named)


def without_secrets(name: str, value: str) -> str:
    """The value of a setting for logs; a secret one is masked as a whole unless its password is found."""
    masked = hide_secrets(value)
    hidden = name in _SECRETS and value and (masked == value or name not in _SERVERS)
    return "***" if hidden else masked
