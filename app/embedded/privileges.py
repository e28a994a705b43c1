"""Who a server runs as, and where its program is: Postgres refuses root, and nobody else should need to be root.

As an ordinary user there is nothing to do. As root the servers run as an unprivileged user; if a parent directory or
the program is closed to that user (a working copy under /root), the process keeps the one Linux capability that opens
it. No permission of a directory that exists is ever changed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.embedded import launch
from app.errors import ConfigurationError

#: Unprivileged users that nearly every system has, best first.
_USERS = ("postgres", "nobody")
#: Capabilities to try, smallest first; -1 is none. A default Docker container has only the last.
_CAPABILITIES = (-1, launch.CAP_DAC_READ_SEARCH, launch.CAP_DAC_OVERRIDE)


@dataclass(frozen=True, kw_only=True)
class Privileges:
    """What a server process gets: -1 keeps the user, -1 keeps no capability."""

    uid: int = -1
    gid: int = -1
    capability: int = -1

    def command(self, program: list[str], *, death_signal: int = 0) -> list[str]:
        """Build the command line that runs `program` with these privileges and ends it with its parent.

        Args:
            program: absolute path and arguments.
            death_signal: what the program gets when the process that starts it dies; 0 for nothing. Linux only.
        """
        return [*self._launcher(death_signal), "exec", *program]

    def can_reach(self, paths: dict[Path, int]) -> bool:
        """Try whether a process with these privileges can access every path in its mode (os.X_OK and so on)."""
        words = [f"{path}:{mode}" for path, mode in paths.items()]
        answer = subprocess.run([*self._launcher(0), "check", *words], capture_output=True, check=False)  # noqa: S603  our own words
        return answer.returncode == 0

    def own(self, path: Path) -> None:
        """Give a file or directory that we just made to this user."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid)

    def _launcher(self, death_signal: int) -> list[str]:
        numbers = (os.getpid(), int(death_signal), self.uid, self.gid, self.capability)
        return [sys.executable, "-I", "-S", launch.__file__, *(str(number) for number in numbers)]


def find_program(package: str, *inside: str) -> Path:
    """Find a server program inside an installed package, without importing the package.

    Raises:
        ConfigurationError: the package or the program is not there.
    """
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (program := Path(folder, *inside)).is_file():
            return program
    raise ConfigurationError(
        f"expected the program {'/'.join(inside)} of the Python package {package}, found none for this platform: "
        "install requirements.txt again (a redis-server on PATH serves as well), or name servers of your own with "
        "CANDLEFLEET_DATABASE_URL and CANDLEFLEET_BROKER_URL"
    )


def find_privileges(data: Path, needed: dict[Path, int]) -> Privileges:
    """Find how a server can run here.

    Args:
        data: the server's data directory, which may not exist yet.
        needed: files of the server's installation and the access it needs to them.

    Returns:
        As an ordinary user: nothing changes. As root: the user who owns the data, or the first that exists of
        postgres and nobody, with the smallest capability that reaches everything.

    Raises:
        ConfigurationError: root, and no unprivileged user can reach the files.
    """
    if os.geteuid() != 0:
        return Privileges()
    uid, gid = _unprivileged_user(data)
    reach = {**needed, (data if data.exists() else data.parent): os.X_OK}
    for capability in _CAPABILITIES if sys.platform.startswith("linux") else _CAPABILITIES[:1]:
        if (found := Privileges(uid=uid, gid=gid, capability=capability)).can_reach(reach):
            return found
    raise ConfigurationError(
        f"the embedded servers must not run as root, and user id {uid} cannot reach {data.parent} or "
        f"{next(iter(needed))}: run as an ordinary user, move the working copy elsewhere, or name servers "
        "of your own with CANDLEFLEET_DATABASE_URL and CANDLEFLEET_BROKER_URL"
    )


def _unprivileged_user(data: Path) -> tuple[int, int]:
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ConfigurationError(
        f"PostgreSQL must not run as root and none of the users {', '.join(_USERS)} exists: run as an ordinary user, "
        "or name a server of your own with CANDLEFLEET_DATABASE_URL"
    )
