"""What is deployed with Compose, as far as it can be known without Docker: files, commands, variables, secrets."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from app.cli.main import cli
from app.settings import PREFIX, Settings, WorkerSettings, known_variables, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
#: A Compose file, and the file that lists its variables.
EXAMPLES = {"docker-compose.yml": ".env.example", "deploy/worker.compose.yml": "deploy/worker.env.example"}

#: ${NAME}, ${NAME:-otherwise} and ${NAME:?message}; $$ is a dollar for the container's shell.
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
#: A tag with at least major and minor version: nothing that moves to a new release by itself.
PINNED = re.compile(r"^[a-z][a-z0-9-]*:\d+\.\d+(\.\d+)?(-[a-z]+)*(@sha256:[0-9a-f]{64})?$")
#: What `openssl rand -hex 24` makes.
FILLED = "0123abcd" * 6
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|_URL$")

Service = dict[str, Any]


def read_services(file: str) -> dict[str, Service]:
    services: dict[str, Service] = yaml.safe_load((ROOT / file).read_text())["services"]
    return services


SERVICES = [(file, name, service) for file in EXAMPLES for name, service in read_services(file).items()]
OURS = [(name, service) for _, name, service in SERVICES if service["image"].startswith("candlefleet:")]


def named(services: list[Any]) -> list[str]:
    return ["-".join(str(part) for part in item[:-1]) for item in services]


every_service = pytest.mark.parametrize(("file", "name", "service"), SERVICES, ids=named(SERVICES))
every_service_of_ours = pytest.mark.parametrize(("name", "service"), OURS, ids=named(OURS))
every_file = pytest.mark.parametrize("file", EXAMPLES)


def filled_in(value: str) -> str:
    """Put a value in place of each variable, as Compose does with a filled-in .env."""
    return VARIABLE.sub(lambda found: found["rest"] if found["kind"] == "-" else FILLED, value)


def seconds(duration: str) -> float:
    amount, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]  # fails the test
    return float(amount) * {"s": 1, "m": 60}[unit]


def parse(words: list[str]) -> None:
    """Parse a command line as `candlefleet` does, without running anything; raises what the parser raises."""
    command: Any = typer.main.get_command(cli)
    context = command.make_context("candlefleet", list(words))
    while isinstance(command, TyperGroup):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def test_all_services_are_there() -> None:
    assert {"redis", "postgres", "migrate", "producer", "worker", "flower", "api"} <= set(
        read_services("docker-compose.yml")
    )


@every_service
def test_images_are_pinned(file: str, name: str, service: Service) -> None:
    assert PINNED.match(service["image"])


def test_our_image_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for _, service in OURS} == {f"candlefleet:{version}"}


def test_base_images_are_pinned() -> None:
    stages = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE)
    names = {name for _, name in stages}
    bases = [image for image, _ in stages if image not in names]
    assert bases
    assert all(PINNED.match(base) for base in bases)


@every_service
def test_no_secret_is_in_the_file(file: str, name: str, service: Service) -> None:
    for variable, value in service.get("environment", {}).items():
        if SECRET.search(variable):
            assert VARIABLE.search(value)["kind"] == "?", f"{variable} must refuse to be empty"  # type: ignore[index]
        assert not re.search(r"://[^/@]*:[^/@]+@", VARIABLE.sub("", value)), f"{variable} holds a password"


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_no_secret_is_in_the_example(example: str) -> None:
    values = dict(re.findall(r"(?m)^(\w+)=(.*)$", (ROOT / example).read_text()))
    assert values
    assert not any(values.values())


@every_file
def test_every_variable_is_in_the_example(file: str) -> None:
    example = (ROOT / EXAMPLES[file]).read_text()
    used = {found["name"]: found["kind"] for found in VARIABLE.finditer((ROOT / file).read_text())}
    assert {name for name, kind in used.items() if kind == "?"} == set(re.findall(r"(?m)^(\w+)=", example))
    assert {name for name, kind in used.items() if kind != "?"} == set(re.findall(r"(?m)^#(\w+)=", example))


@every_service
def test_what_serves_has_a_health_check(file: str, name: str, service: Service) -> None:
    # the others run once and end
    assert ("healthcheck" in service) == (name not in ("migrate", "producer"))


@every_service
def test_nothing_of_a_service_can_be_there_only_once(file: str, name: str, service: Service) -> None:
    assert "container_name" not in service
    assert "hostname" not in service
    if name == "worker":
        assert "ports" not in service
        assert not any(word.startswith(("--name", "-n")) for word in service["command"])


def test_only_flower_and_the_api_are_published_and_only_here() -> None:
    published = {name: service["ports"] for _, name, service in SERVICES if "ports" in service}
    assert list(published) == ["flower", "api"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@every_service_of_ours
def test_our_processes_have_no_privileges(name: str, service: Service) -> None:
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"(?m)^USER (.*)$", DOCKERFILE)[-1] == "10001:10001"


@every_service_of_ours
def test_commands_are_real(name: str, service: Service) -> None:
    parse(service["command"])


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["producer", "--feeed", "replay:/candles"])


@every_service_of_ours
def test_the_settings_accept_the_environment(name: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {key: filled_in(value) for key, value in service["environment"].items()}
    assert set(environment) <= {variable.name for variable in known_variables()}
    assert all(key.startswith(PREFIX) for key in environment)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    assert settings.log.json_lines
    assert settings.database_url is not None
    assert settings.broker_url is not None


def test_the_addresses_name_the_services() -> None:
    environment = {
        key: filled_in(value) for key, value in read_services("docker-compose.yml")["worker"]["environment"].items()
    }
    settings = Settings(
        database_url=environment["CANDLEFLEET_DATABASE_URL"], broker_url=environment["CANDLEFLEET_BROKER_URL"]
    )
    assert settings.database_dsn == f"postgresql+psycopg://candlefleet:{FILLED}@postgres:5432/candlefleet"
    assert settings.broker_dsn == f"redis://:{FILLED}@redis:6379/0"


@pytest.mark.parametrize("file", EXAMPLES)
def test_a_worker_gets_the_time_to_end_its_chunks(file: str) -> None:
    grace = seconds(read_services(file)["worker"]["stop_grace_period"])
    assert grace > WorkerSettings().shutdown_s


@pytest.mark.parametrize("name", ["producer", "worker", "flower", "api"])
def test_services_wait_for_schema_and_broker(name: str) -> None:
    waits = read_services("docker-compose.yml")[name]["depends_on"]
    assert waits["migrate"] == {"condition": "service_completed_successfully"}
    assert waits["redis"] == {"condition": "service_healthy"}


def test_redis_keeps_what_it_is_given() -> None:
    command = " ".join(read_services("docker-compose.yml")["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass $$REDISCLI_AUTH" in command


def test_what_the_image_copies_is_there_and_gets_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [word for words in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", DOCKERFILE) for word in words.split()]
    assert {"migrations", "alembic.ini", "app", "workers", "config"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists()
        assert any(fnmatch(path, pattern) for pattern in let_in)
