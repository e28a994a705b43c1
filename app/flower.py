"""How Flower is run: never without a password, with bounded memory, and with nothing secret in `ps`.

Flower's own command line would also read `FLOWER_*` variables and execute a `flowerconfig.py` of the working
directory, so it is not used: its web application is built here, from our settings alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from celery import Celery

from app.broker import create_celery
from app.errors import ConfigurationError
from app.kept import keep_secret
from app.settings import FlowerSettings, Settings

log = structlog.get_logger()

#: Seconds after which a node that is gone leaves Flower's metrics: every new container is a node with a new name.
FORGET_NODES_AFTER_S = 3600
#: What the list of tasks shows, as wide as a laptop's screen.
TASK_COLUMNS = "name,uuid,state,args,received,runtime,worker"


def run_flower(settings: Settings, port: int | None, say: Callable[[str], object]) -> None:
    """Serve Flower until SIGTERM or Ctrl-C.

    Args:
        settings: of the deployment.
        port: instead of the settings' port; 0 takes a free one.
        say: tells the operator, once, a password that was made.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    flower = settings.flower
    password = flower.password.get_secret_value() if flower.password else keep_password(settings.home, say)
    application = _build(create_celery(settings), flower, flower.port if port is None else port, password)
    _listen(application, flower.host)
    loop = application.io_loop.asyncio_loop
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, application.stop)
    application.start()
    log.info("Flower stopped")


def keep_password(home: Path, say: Callable[[str], object]) -> str:
    """Return the generated password of this deployment; the first call makes it, keeps it and says it.

    Raises:
        ConfigurationError: the file that keeps it is empty.
    """
    return keep_secret(home / "flower-password", "Flower's password", say)


def _build(celery: Celery, settings: FlowerSettings, port: int, password: str) -> Any:
    # imported here, because no other command should wait for a web server it does not run
    from flower.app import Flower
    from flower.options import default_options as options
    from flower.urls import settings as pages
    from flower.views.monitor import Metrics
    from tornado.web import authenticated

    options.address, options.port = settings.host, port
    options.basic_auth = [f"{settings.user}:{password}"]
    options.max_tasks = settings.max_tasks
    options.tasks_columns = TASK_COLUMNS
    options.purge_offline_workers = FORGET_NODES_AFTER_S
    application = Flower(capp=celery, options=options, **pages)
    # Flower shows its metrics, with the names of nodes and strategies, to anybody; /healthcheck says only OK
    guarded = type("GuardedMetrics", (Metrics,), {"get": authenticated(Metrics.get)})
    application.add_handlers(".*", [("/metrics", guarded)])
    return application


def _listen(application: Any, host: str) -> None:
    wanted = f"{host}:{application.options.port}"
    try:
        port = application.start_http_server()
    except OSError as error:
        raise ConfigurationError(
            f"Flower cannot listen on {wanted}: {error.strerror}. Choose another port with --port or "
            "CANDLEFLEET_FLOWER__PORT, another address with CANDLEFLEET_FLOWER__HOST"
        ) from error
    log.info("Flower listens", url=f"http://{host}:{port}", user=application.options.basic_auth[0].partition(":")[0])
