"""A running API as a client meets it: a real process, asked over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Self

from psycopg import sql

from app import embedded
from app.settings import Settings
from tests.building import REPOSITORY, environment
from tests.conftest import administering
from tests.waiting import wait_until

READ, OPERATE = "made-up-token-to-read", "made-up-token-to-operate"
TOKENS = {"looker": {"token": READ, "role": "read"}, "operator": {"token": OPERATE, "role": "operate"}}

#: A run that is worked on only when a node serves runs.
SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-08T00:00Z", "to": "2024-03-01T00:00Z"}


_CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def fields(self) -> list[str]:
        """Which fields a problem names."""
        return [each["field"] for each in self.body["errors"]]


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event, or a comment, whose name is empty."""

    name: str = ""
    id: str | None = None
    data: Any = None


@dataclass(slots=True)
class Stream:
    """An open stream of events."""

    connection: HTTPConnection
    response: HTTPResponse
    headers: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {name.lower(): value for name, value in self.response.getheaders()}

    def events(self) -> Iterator[Event]:
        """Yield events until the server ends the stream."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
                fields = {}
            else:
                fields = {}

    def close(self) -> None:
        """Go away, as a client does whose machine is switched off politely."""
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Api:
    """A running `candlefleet api`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str, token: str | None = READ, **headers: str) -> Answer:
        """Ask for something."""
        return self.ask("GET", path, token, headers=headers)

    def post(self, path: str, body: Any = None, token: str | None = OPERATE, **headers: str) -> Answer:
        """Have something done."""
        return self.ask("POST", path, token, body, headers)

    def ask(
        self, method: str, path: str, token: str | None, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the answer; status 0 when nobody listens yet."""
        connection = self._connect()
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, raw, self._headers(token, headers or {}))
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in (response.getheader("Content-Type") or "")
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, json.loads(text) if is_json else text.decode())
        except ConnectionRefusedError:
            return Answer(0, {}, None)
        finally:
            connection.close()

    def watch(self, run: int, **headers: str) -> Stream:
        """Open a stream of a run's events."""
        connection = self._connect()
        connection.request("GET", f"/api/runs/{run}/events", headers=self._headers(READ, headers))
        return Stream(connection, connection.getresponse())

    def start(self, **changes: Any) -> int:
        """Start a run and return its number."""
        answer = self.post("/api/runs", {**SPEC, **changes})
        assert answer.status == 201, answer
        return int(answer.body["id"])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def _connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def _headers(self, token: str | None, headers: Mapping[str, str]) -> dict[str, str]:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        credentials = {} if token is None else {"Authorization": f"Bearer {token}"}
        return {"Content-Type": "application/json", **credentials, **own}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def command(home: Path, *arguments: str) -> list[str]:
    """Return the command line of an API with a data folder of its own."""
    return [sys.executable, "-m", "app.cli.main", "--home", str(home), "api", *arguments]


@contextmanager
def serving(settings: Settings, home: Path, *arguments: str, **variables: str) -> Iterator[Api]:
    """Run `candlefleet api` and wait until it answers.

    Args:
        settings: of the deployment.
        home: folder of its data and its log.
        arguments: of the command.
        variables: of its environment, without ``CANDLEFLEET_``.
    """
    home.mkdir(exist_ok=True, parents=True)
    port, log = free_port(), home / "api.log"
    wanted = {"API__TOKENS": json.dumps(TOKENS), **variables}
    own = {f"CANDLEFLEET_{name}": value for name, value in wanted.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(home, "--port", str(port), *arguments),
            env={**environment(settings), **own},
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
        )
    api = Api(process, port, log)
    try:
        wait_until(lambda: process.poll() is not None or api.get("/api/health", None).status, "the API answers", 60)
        assert process.poll() is None, log.read_text()
        yield api
    finally:
        process.kill()
        process.wait()


def let_in(servers: embedded.Servers, settings: Settings, *, allowed: bool) -> None:
    """Have Postgres refuse a database to everybody, or no longer."""
    name = settings.database_dsn.rpartition("/")[2]
    with administering(servers) as connection:
        change = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(change.format(sql.Identifier(name), sql.Literal(allowed)))
        if not allowed:
            connection.execute(_CUT_OFF, (name,))
