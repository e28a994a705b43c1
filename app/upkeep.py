"""Keeping a whole deployment running on one machine: workers, maintenance, Flower, the API, a producer if asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from app.broker import BATCH_QUEUE
from app.deployment import Deployment
from app.errors import ConfigurationError
from app.flower import keep_password
from app.kept import keep_api_token
from app.operations import Operations
from app.operations_gate import tell_rejected
from app.processes import Children
from app.settings import Settings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from app.storage.strategies import load_strategies

#: Seconds between two looks at the children.
LOOK_EVERY_S = 0.5
#: Seconds before a child that died is started again: a child that cannot start must not spin.
RESTART_AFTER_S = 3.0
#: Exit code of a command that is configured wrongly: starting it again would not help.
WRONG_CONFIGURATION = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep running."""

    feed: str | None = None
    speed: float | None = None
    slots: int = 2


def keep_up(settings: Settings, plan: Plan, stop: Event, say: Callable[[str], None]) -> None:
    """Run a deployment until `stop` is set. A process that dies is started again.

    Args:
        settings: as loaded.
        plan: what to run.
        stop: ends it.
        say: told what happens, a line at a time.

    Raises:
        ConfigurationError: a server cannot be started, or the definition file is wrong.
    """
    with Deployment(settings) as deployment:
        say(deployment.describe())
        _prepare(deployment.settings, say)
        _keep_secrets(settings, say)
        logs = settings.home / "logs"
        with Children(logs, deployment.environment) as children:
            commands = _commands(plan)
            for name, command in commands.items():
                children.start(name, *command)
            _tell_addresses(settings, say)
            say(f"Logs in {logs}. Look with 'candlefleet status' in another terminal. Ctrl-C stops everything.")
            _watch(children, commands, stop, say)
            say("Stopping")


def _keep_secrets(settings: Settings, say: Callable[[str], None]) -> None:
    # here, so that they are said on the operator's terminal and not in the logs of those that need them
    if settings.flower.password is None:
        keep_password(settings.home, say)
    if not settings.api.tokens and not settings.api.open:
        keep_api_token(settings.home, say)


def _tell_addresses(settings: Settings, say: Callable[[str], None]) -> None:
    flower, api = settings.flower, settings.api
    password = "as set" if flower.password else f"in {settings.home / 'flower-password'}"
    say(f"Flower on http://{flower.host}:{flower.port}, user {flower.user}, password {password}")
    own = "no token needed" if api.open else f"token in {settings.home / 'api-token'}"
    say(f"API on http://{api.host}:{api.port}/api/docs, {'tokens as set' if api.tokens else own}")


def _prepare(settings: Settings, say: Callable[[str], None]) -> None:
    engine = build_engine(settings.database_dsn, name="candlefleet up")
    upgrade(engine)
    with engine.connect() as connection:
        known = len(load_strategies(connection))
    engine.dispose()
    if known:
        say(f"{known} strategies in the catalogue")
        return
    operations = Operations(settings)
    added = operations.add_first_definitions()
    for line in tell_rejected(added):
        say(line)
    operations.close()
    say(f"{len(added)} strategies added to an empty catalogue")


def _commands(plan: Plan) -> dict[str, tuple[str, ...]]:
    commands: dict[str, tuple[str, ...]] = {
        "worker": ("app.cli.main", "worker", "--concurrency", str(plan.slots)),
        "runs": ("app.cli.main", "worker", "--queues", BATCH_QUEUE, "--concurrency", str(plan.slots)),
        "maintenance": ("app.cli.main", "maintenance"),
        "flower": ("app.cli.main", "flower"),
        "api": ("app.cli.main", "api", "--make-token"),
    }
    if plan.feed is not None:
        speed = () if plan.speed is None else ("--speed", str(plan.speed))
        commands["producer"] = ("app.cli.main", "producer", "--feed", plan.feed, *speed)
    return commands


def _watch(children: Children, commands: dict[str, tuple[str, ...]], stop: Event, say: Callable[[str], None]) -> None:
    died_at: dict[str, float] = {}
    while not stop.wait(LOOK_EVERY_S):
        for name in children.dead():
            if name == "producer":  # a feed ends
                say(f"The feed has ended:\n{children.tail(name)}")
                children.forget(name)
            elif children.exit_code(name) == WRONG_CONFIGURATION:
                raise ConfigurationError(f"{name} cannot run:\n{children.tail(name)}")
            elif name not in died_at:
                died_at[name] = time.monotonic()
                say(f"{name} died and is started again; the end of its log:\n{children.tail(name)}")
            elif time.monotonic() - died_at[name] > RESTART_AFTER_S:
                del died_at[name]
                children.start(name, *commands[name])
