"""The embedded servers as their users meet them: real processes, real signals, real files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from app import embedded
from app.embedded.files import is_locked
from app.embedded.privileges import find_program
from app.embedded.servers import HOST
from app.errors import ConfigurationError
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
#: A user in a process of its own: says that it is ready, then lives until its standard input ends.
USER = """
import sys
from pathlib import Path
from app import embedded
with embedded.start(Path(sys.argv[1]), durable=False) as servers:
    print(servers.database_url, servers.broker_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that any user can reach: pytest's own tmp_path is closed to all but its owner."""
    path = Path(tempfile.mkdtemp(prefix="candlefleet-"))
    path.chmod(0o755)
    yield path / "servers"
    wait_until(lambda: not leftovers(path), "the servers of this test end with it")
    shutil.rmtree(path)


@contextlib.contextmanager
def user(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a user in a session of its own, as a command in a terminal has its own process group."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def addresses(process: subprocess.Popen[str]) -> list[str]:
    """Wait until a user is ready and return the two addresses it was given."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def leftovers(root: Path) -> list[str]:
    """Name what still runs for a directory: by command line, and by the locks that servers inherit."""
    commands = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    named = [
        " ".join(words) for words in commands if any(str(root) in word for word in words[1:]) and USER not in words
    ]
    held = [
        str(lock) for lock in root.rglob("*.lock") if lock.name in ("server.lock", "keeper.lock") and is_locked(lock)
    ]
    return named + held


def query(servers: embedded.Servers, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(servers.database_url.replace("+psycopg", "")) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def remember(servers: embedded.Servers) -> None:
    query(servers, "CREATE TABLE memory AS SELECT 'kept' AS word")
    with redis.from_url(servers.broker_url) as client:
        client.set("memory", "kept")


def assert_remembered(servers: embedded.Servers) -> None:
    assert query(servers, "SELECT word FROM memory") == [("kept",)]
    with redis.from_url(servers.broker_url) as client:
        assert client.get("memory") == b"kept"


def keeper_pids(root: Path) -> list[int]:
    processes = psutil.process_iter(["pid", "cmdline"])
    return [
        each.info["pid"]
        for each in processes
        if "app.embedded" in (words := each.info["cmdline"] or []) and any(str(root) in word for word in words)
    ]


def test_first_start_gives_a_database_of_our_own_and_an_empty_redis(root: Path) -> None:
    with embedded.start(root) as servers:
        facts = query(
            servers,
            "SELECT current_user, current_database(), pg_get_userbyid(datdba), pg_encoding_to_char(encoding),"
            " current_setting('timezone'), current_setting('fsync'), current_setting('listen_addresses')"
            " FROM pg_database WHERE datname = current_database()",
        )
        assert facts == [("candlefleet", "candlefleet", "candlefleet", "UTF8", "UTC", "on", HOST)]
        with redis.from_url(servers.broker_url, decode_responses=True) as client:
            assert client.config_get("*")["maxmemory-policy"] == "noeviction"
            assert client.dbsize() == 0
        assert servers.describe().startswith("PostgreSQL 18.")


def test_nobody_gets_in_without_the_password(root: Path) -> None:
    with embedded.start(root, durable=False) as servers:
        password = servers.redis.published.password
        with (
            redis.from_url(servers.broker_url.replace(password, "wrong")) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        wrong = servers.database_url.replace("+psycopg", "").replace(servers.postgres.published.password, "wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_either_server_alone(root: Path, kind: str) -> None:
    with embedded.start(root, postgres=kind == "postgres", redis=kind == "redis", durable=False) as servers:
        assert servers.describe().count(f"on {HOST}") == 1
        with pytest.raises(ConfigurationError, match="was not asked for"):
            _ = servers.broker_url if kind == "postgres" else servers.database_url


def test_second_process_joins_and_the_last_one_to_go_stops_them(root: Path) -> None:
    with user(root) as first, embedded.start(root, durable=False) as servers:
        assert addresses(first) == [servers.database_url, servers.broker_url]
        keepers = keeper_pids(root)
        assert len(keepers) == 2
        first.kill()
        first.wait()
        remember(servers)
        assert keeper_pids(root) == keepers
    wait_until(lambda: not leftovers(root), "the last user has gone")
    with embedded.start(root, durable=False) as again:
        assert again.database_url == servers.database_url
        assert_remembered(again)


def test_two_first_starts_at_once_share_the_servers(root: Path) -> None:
    with user(root) as one, user(root) as two:
        assert addresses(one) == addresses(two) != []
        assert len(keeper_pids(root)) == 2


def test_users_that_come_and_go_all_the_time_always_get_living_servers(root: Path) -> None:
    # Each start meets the keeper of the one before in another moment of its shutdown.
    for _ in range(8):
        with (
            embedded.start(root, postgres=False, durable=False) as servers,
            redis.from_url(servers.broker_url) as client,
        ):
            assert client.ping()


@pytest.mark.parametrize("last_word", [signal.SIGINT, signal.SIGKILL])
def test_no_process_survives_its_user(root: Path, last_word: signal.Signals) -> None:
    with user(root) as process:
        addresses(process)
        os.killpg(process.pid, last_word)
        process.wait(timeout=10)
        wait_until(lambda: not leftovers(root), f"the keepers noticed that {last_word.name} ended the user")


def test_servers_die_with_a_killed_keeper_and_the_next_start_finds_the_data(root: Path) -> None:
    with embedded.start(root) as servers:
        remember(servers)
        for pid in keeper_pids(root):
            os.kill(pid, signal.SIGKILL)
        if sys.platform == "linux":
            wait_until(lambda: not leftovers(root), "the servers died with their keepers")
        with embedded.start(root) as again:
            # Those who held the old servers are served again too: addresses stay.
            assert again.database_url == servers.database_url
            assert_remembered(servers)


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_leftover_server_without_keeper_is_ended_first(root: Path, kind: str) -> None:
    # As on a system without a parent-death signal, where a server lives on after its keeper.
    leftover = {"postgres": embedded.PostgresServer, "redis": embedded.RedisServer}[kind](root / kind, durable=False)
    leftover.start()
    with embedded.start(root, durable=False) as servers:
        assert leftover.pid is None
        assert getattr(servers, kind).answers()


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_killed_server_comes_back_on_the_same_port_with_its_data(root: Path, kind: str) -> None:
    with embedded.start(root) as servers:
        remember(servers)
        server: embedded.KeptServer = getattr(servers, kind)
        before = (server.pid, server.url)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.pid not in (0, before[0]) and server.answers(), f"{kind} was started again")
        assert server.url == before[1]
        assert_remembered(servers)


def test_handles_stop_start_and_wipe(root: Path) -> None:
    with embedded.start(root, durable=False) as servers:
        remember(servers)
        for server in (servers.postgres, servers.redis):
            server.stop()
            assert not server.answers()
            server.start()
            server.kill()
            server.start()
        assert_remembered(servers)
        servers.redis.restart(wipe=True)
        with redis.from_url(servers.broker_url) as client:
            assert client.dbsize() == 0
        servers.postgres.restart(wipe=True)
        assert query(servers, "SELECT to_regclass('memory')") == [(None,)]


def test_server_directly_without_a_keeper(root: Path) -> None:
    server = embedded.RedisServer(root, durable=False)
    server.start()
    url = server.url
    server.kill()
    assert server.pid is None
    server.start()
    assert server.url == url
    server.stop()
    assert not is_locked(root / "server.lock")


def test_garbage_in_every_file_we_leave_never_blocks(root: Path) -> None:
    with embedded.start(root, durable=False) as servers:
        remember(servers)
    wait_until(lambda: not leftovers(root), "the servers stopped")
    for kind in ("postgres", "redis"):
        for name in ("server.json", "identity.json", "failure.txt", "users.lock", "server.lock", "keeper.lock"):
            (root / kind / name).write_bytes(b"\xff{]")
    # A pid that by now belongs to a living process of somebody else.
    (root / "postgres" / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n/elsewhere\n1\n5432\n")
    with embedded.start(root, durable=False) as again:
        assert_remembered(again)  # with new passwords


def test_a_port_that_somebody_took_meanwhile_is_not_waited_for(root: Path) -> None:
    with embedded.start(root, durable=False) as servers:
        ports = [servers.postgres.published.port, servers.redis.published.port]
    wait_until(lambda: not leftovers(root), "the servers stopped")
    with contextlib.ExitStack() as taken:
        for port in ports:
            taken.enter_context(socket.create_server((HOST, port)))
        with embedded.start(root, durable=False) as again:
            assert not {again.postgres.published.port, again.redis.published.port} & set(ports)


@pytest.mark.parametrize(
    "name",
    ["a folder", 'it\'s "quoted" $HOME `id` ;', "Kerzenflotte-蝋燭-ü", "/".join(["long" * 15] * 5)],
    ids=["space", "quotes", "unicode", "301 characters"],
)
def test_any_path_will_do(root: Path, name: str) -> None:
    with embedded.start(root / name, durable=False) as servers:
        remember(servers)
        assert_remembered(servers)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give up its rights on the way")
def test_root_can_work_where_nobody_else_may_look(root: Path) -> None:
    root.mkdir(mode=0o700)
    with embedded.start(root / "inside", durable=False) as servers:
        remember(servers)
        assert psutil.Process(servers.postgres.pid).uids().real != 0
        assert psutil.Process(servers.redis.pid).uids().real != 0
    assert root.stat().st_mode & 0o777 == 0o700


def test_files_with_passwords_are_private(root: Path) -> None:
    with embedded.start(root, durable=False):
        readable = [str(path) for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        # What is inside the data directories is behind their own 0700.
        assert [path for path in readable if "/data/" not in path] == []
        assert all((root / kind / "data").stat().st_mode & 0o777 == 0o700 for kind in ("postgres", "redis"))


def test_root_that_is_a_file_is_a_clear_error(root: Path) -> None:
    root.write_text("not a directory")
    with pytest.raises(ConfigurationError, match="expected a directory"):
        embedded.start(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_root_is_a_clear_error(root: Path) -> None:
    root.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match=r"cannot make .*Permission denied"):
        embedded.start(root)


def test_start_failure_carries_the_servers_own_words(root: Path) -> None:
    with embedded.start(root, redis=False, durable=False):
        pass
    wait_until(lambda: not leftovers(root), "the server stopped")
    (root / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match=r"(?s)PostgreSQL ended with exit code 1.*incompatible with server"):
        embedded.start(root, redis=False)


def test_server_that_gives_less_than_asked_for_is_refused(root: Path) -> None:
    with embedded.start(root, postgres=False, durable=False), pytest.raises(ConfigurationError, match="without fsync"):
        embedded.start(root, postgres=False)


def test_missing_program_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"install requirements\.txt again"):
        find_program("a_package_that_nobody_has", "bin", "postgres")


def test_the_keeper_tells_what_it_does(root: Path) -> None:
    with embedded.start(root, postgres=False, durable=False) as servers:
        published = json.loads((root / "redis" / "server.json").read_text())
        assert published["pid"] == servers.redis.pid
    wait_until(lambda: not leftovers(root), "the server stopped")
    assert not (root / "redis" / "server.json").exists()
    assert "stopped Redis" in (root / "redis" / "keeper.log").read_text()
