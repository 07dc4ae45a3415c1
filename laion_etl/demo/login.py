"""The demo's login: one administrator, whose password only this user can read."""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

_USER = "admin"
_FILE = "login.json"


@dataclass(frozen=True, slots=True)
class Login:
    """A user of Airflow; `file` is where Airflow's SimpleAuthManager reads the password."""

    user: str
    password: str = field(repr=False)
    file: Path


def new_login(home: Path) -> Login:
    """Generate a password and write it to a new file in `home` with mode 0600.

    Raises FileExistsError when the file, or a link of its name, exists already.
    """
    login = Login(_USER, secrets.token_urlsafe(16), home / _FILE)
    descriptor = os.open(login.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({login.user: login.password}, file)
    return login
