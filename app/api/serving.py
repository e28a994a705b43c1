"""How the API is run: on an address that is free, until a signal, with its streams ended first."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from uvicorn import Config, Server

from app.api.application import create_app
from app.errors import ConfigurationError
from app.kept import keep_api_token
from app.settings import ApiSettings, ApiToken, Role, Settings

log = structlog.get_logger()

#: Seconds that running requests get when the API is to end.
PATIENCE_S = 10


def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Args:
        settings: with a database and a broker in them.

    Raises:
        ConfigurationError: there are no tokens, the schema is not the newest, or the address cannot be listened on.
        StorageUnavailableError: Postgres is away.
    """
    app = create_app(settings)
    with app.state.operations.reading():
        pass
    listening = _listen(settings.api)
    host, port = listening.getsockname()[:2]
    log.info("the API listens", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/api/docs")
    # log_config: ours is set up; access_log: a line for every request is what a proxy is for
    config = Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=PATIENCE_S, server_header=False)
    _Server(config, app).run([listening])
    log.info("the API stopped")


def with_made_token(settings: Settings, say: Callable[[str], object]) -> Settings:
    """Return the settings with a token to operate, if they want one and have none.

    The first call makes it, keeps it and says it.

    Raises:
        ConfigurationError: the file that keeps it is empty.
    """
    if settings.api.tokens or settings.api.open:
        return settings
    made = ApiToken(token=SecretStr(keep_api_token(settings.home, say)), role=Role.OPERATE)
    api = settings.api.model_copy(update={"tokens": {"made": made}})
    return settings.model_copy(update={"api": api})


class _Server(Server):
    """Uvicorn, but that streams end when it does, and that being told to end is no error."""

    def __init__(self, config: Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would go on as long as their runs do, then the rest."""
        await self._app.state.follower.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have signals end the server; uvicorn's own would raise them again afterwards and end with an error code."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


def _listen(settings: ApiSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # naming TCP: asyncio sends small answers at once only on sockets that do, and others wait 40 ms for the other side
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"the API cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another port with "
            "--port or CANDLEFLEET_API__PORT, another address with --host or CANDLEFLEET_API__HOST"
        ) from error
    return listening
